"""`config.json` of a Hugging Face checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.files import file_inside
from mscvt.formats.huggingface.folders import refuse_other_folder
from mscvt.formats.json_files import read_json

CONFIG = "config.json"
_LIMIT = 16 << 20
"""Bytes; the largest published config.json are some kilobytes."""


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` of a folder.

    Raises:
        MscvtError: Where the folder is something else, the file is missing, too large, or no JSON object.
    """
    refuse_other_folder(folder)
    path = folder / CONFIG
    if not path.exists() and not path.is_symlink():
        raise MscvtError(
            f"{path}: not found", hint="The folder of a Hugging Face checkpoint holds config.json beside its weights."
        )
    config = read_json(file_inside(folder, CONFIG, "the configuration"), _LIMIT)
    if not isinstance(config, dict):
        raise MscvtError(f"{path}: holds {type(config).__name__}, expected an object")
    return config
