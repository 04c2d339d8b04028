"""Looking at a conversion before it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt import __version__
from mscvt.description.description import Description
from mscvt.errors import MscvtError
from mscvt.jobs.prepared import Conversion
from mscvt.parallel.grid import Rank, ShardName
from mscvt.plan.contents import OutputFile
from mscvt.views.experts import expert_places
from mscvt.views.files import SizedFile, group_files
from mscvt.views.pipeline import pipeline_of
from mscvt.views.preview import Preview, Side
from mscvt.views.sizes import size_text

if TYPE_CHECKING:
    from mscvt.views.shard import Shard
    from mscvt.views.way import Way

_PAGES = (".html", ".htm")


def look_ahead(
    conversion: Conversion,
    target: Path | None,
    files: Sequence[OutputFile],
    *,
    rank: str | None = None,
    tensor: str | None = None,
) -> Preview:
    """What a conversion would write, and where everything goes.

    Args:
        conversion: The conversion.
        target: The folder to be made; None where nobody said it yet.
        files: Those that are to be written.
        rank: The rank whose shard is wanted, such as `pp=1,tp=0`: of what is written, towards Hugging Face of what is
            read.
        tensor: The Hugging Face tensor whose way is wanted.

    Raises:
        MscvtError: Where there is no such rank or tensor.
    """
    layouts = _layouts(conversion)
    sides = [Side(layout is conversion.source_layout, pipeline_of(layout), expert_places(layout)) for layout in layouts]
    asked = [flag for flag, value in (("--rank", rank), ("--tensor", tensor)) if value is not None]
    if asked and not layouts:
        raise MscvtError(
            f"{' and '.join(asked)}: nothing of this conversion is cut into ranks", hint=f"Leave out {asked[0]}."
        )
    return Preview(
        sides=tuple(sides),
        groups=group_files(
            SizedFile(file.path, file.nbytes, len(file.tensors), file.labels.get("pp")) for file in files
        ),
        files=len(files),
        nbytes=sum(file.nbytes for file in files),
        free=None if target is None else free_space(target),
        shard=None if rank is None else _shard(conversion, layouts[-1], rank),
        ways=() if tensor is None else _ways(layouts, tensor),
    )


def _layouts(conversion: Conversion) -> list[Description]:
    return [layout for layout in (conversion.source_layout, conversion.target_layout) if layout is not None]


def _ways(layouts: Sequence[Description], tensor: str) -> tuple[Way, ...]:
    from mscvt.views.way import way_of

    return tuple(way_of(layout, tensor) for layout in layouts)


def _shard(conversion: Conversion, layout: Description, text: str) -> Shard:
    from mscvt.views.shard import read_rank, shard_of

    rank = read_rank(text, layout)
    return shard_of(layout, rank, _dtypes(conversion, layout, rank))


def _dtypes(conversion: Conversion, layout: Description, rank: Rank) -> Mapping[ShardName, str]:
    """The dtypes of a rank's tensors, as they are written or read."""
    if layout is conversion.target_layout:
        return {
            name: dtype
            for file in conversion.plan.files
            for name, (dtype, _) in file.tensors.items()
            if name[0] == rank
        }
    return {name: info.dtype for name, info in conversion.source.tensors.items() if name[0] == rank}


def write_page(path: Path, conversion: Conversion, preview: Preview, tensor: str | None = None) -> None:
    """Write a plan as one page, which replaces an earlier one.

    Args:
        path: The page.
        conversion: The conversion.
        preview: What `look_ahead` gave.
        tensor: The Hugging Face tensor that is drawn; None draws one of each kind.

    Raises:
        MscvtError: Where the path is not that of a page, or it can't be written.
    """
    from mscvt.views.drawing import drawings_of
    from mscvt.views.page import page_text

    if path.suffix not in _PAGES:
        raise MscvtError(f"--html {path}: is no name of a page", hint=f"Let it end in {_PAGES[0]}.")
    said = conversion.identity
    facts = {
        "model type": said["model type"],
        "files": f"{preview.files:,}",
        "bytes": f"{preview.nbytes:,} ({size_text(preview.nbytes)})",
    }
    if preview.free is not None:
        facts["free there"] = f"{size_text(preview.free)}, {'enough' if preview.fits else 'NOT enough'}"
    made = page_text(
        preview,
        [tuple(drawings_of(layout, tensor)) for layout in _layouts(conversion)],
        facts,
        heading=f"{said['direction']} of {conversion.sources[0].absolute().name}",
        about="What this conversion would write, and where everything goes. Every byte is accounted for.",
        version=__version__,
    )
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(made, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise MscvtError(
            f"--html {path}: can't be written: {error.strerror}",
            hint="Give a file in a folder that exists and may be written to.",
        ) from None


def free_space(target: Path) -> int:
    """Bytes that are free where a folder would be made.

    Raises:
        OSError: Where nobody can say.
    """
    there = target.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    room = os.statvfs(there)
    return room.f_bavail * room.f_frsize
