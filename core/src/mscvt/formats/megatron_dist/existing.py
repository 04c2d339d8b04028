"""Which files a distributed checkpoint consists of that is in a folder already."""

from __future__ import annotations

from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.formats.megatron_dist.metadata import read_metadata
from mscvt.formats.megatron_dist.writer import SAYING
from mscvt.formats.megatron_torch.paths import iteration_folder


def listed_files(folder: Path, iteration: int | str) -> set[str]:
    """The files of an iteration by its `.metadata`, as paths below the folder; none where it is no such checkpoint."""
    name = iteration_folder(iteration)
    try:
        files = read_metadata(folder / name).files
    except MscvtError:
        return set()
    plain = {file for file in files if Path(file).name == file}
    return {f"{name}/{file}" for file in (*plain, *SAYING)}
