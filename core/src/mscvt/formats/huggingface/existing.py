"""Which files a Hugging Face checkpoint consists of that is in a folder already."""

from __future__ import annotations

import json
from pathlib import Path

_SINGLE = "model.safetensors"
_INDEX = f"{_SINGLE}.index.json"
_LIMIT = 256 << 20
"""Bytes that no index has."""


def listed_files(folder: Path) -> set[str]:
    """The weight files by the checkpoint's own account, its index; names of files in the folder itself.

    Without an index it is a single file. Where the index can't be read, there are none.
    """
    path = folder / _INDEX
    if not path.exists():
        return {_SINGLE}
    try:
        if path.stat().st_size > _LIMIT:
            return set()
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str) and name.endswith(".safetensors") and "/" not in name}
