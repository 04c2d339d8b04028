"""The keys of what `--json` prints, as docs/json.md describes them."""

from __future__ import annotations

from typing import Any

PLAN = {"command", "target", "files", "bytes", "notes", "training_flags", "is_dry_run"}
ERROR = {"message", "hint", "faults"}
KEYS = {
    "plan": PLAN | {"sides", "groups", "free", "shard", "ways"},
    "result": PLAN
    | {"seconds", "is_complete", "resumed_tensors", "verified", "staging", "written", "missing", "peak_memory"},
    "verify": {"command", "is_equal", "differences", "tensors", "bytes", "seconds", "notes"},
    "inspect": {
        *("command", "folder", "kind", "what", "model_type", "parameters", "facts", "dtypes", "groups", "bytes"),
        *("sides", "rows", "left_over", "missing", "odd", "scan", "notes"),
    },
    "recipes": {"command", "recipes", "notes"},
    "names": {"command", "model_type", "rows", "left_over", "missing", "notes"},
    "download": {
        *("command", "target", "source", "repository", "revision", "files", "bytes", "fetched", "seconds", "notes"),
    },
    "check": {
        *("command", "target", "is_whole", "model_type", "files", "problems", "tensors", "bytes", "seconds", "notes"),
    },
    "status": {"command", "target", "conversion", "download"},
    "unfinished conversion": {
        *(
            "direction",
            "load_dir",
            "model_type",
            "options",
            "staging",
            "bytes",
            "on_disk",
            "is_running",
            "files",
            "only",
        ),
    },
    "unfinished download": {
        *("source", "repository", "revision", "bytes", "on_disk", "is_running", "files", "missing"),
    },
    "new-plugin": {"command", "target", "paths", "unplaced", "notes"},
    "plugins": {"command", "plugins"},
    "event": {"time", "phase", "bytes", "total_bytes", "bytes_per_second", "seconds_left", "message"},
    "error": ERROR,
}
"""What is printed -> its keys."""
_TYPES: dict[str, type | tuple[type, ...]] = {
    "command": str,
    "target": (str, type(None)),
    "files": list,
    "bytes": int,
    "tensors": int,
    "notes": list,
    "training_flags": list,
    "is_dry_run": bool,
    "seconds": float,
    "is_complete": bool,
    "resumed_tensors": int,
    "verified": bool,
    "staging": str,
    "written": int,
    "missing": list,
    "folder": str,
    "kind": str,
    "what": str,
    "parameters": (int, type(None)),
    "facts": dict,
    "dtypes": list,
    "odd": list,
    "scan": (dict, type(None)),
    "sides": list,
    "groups": list,
    "free": (int, type(None)),
    "shard": (dict, type(None)),
    "ways": list,
    "is_equal": bool,
    "differences": list,
    "plugins": list,
    "recipes": list,
    "source": str,
    "repository": str,
    "revision": str,
    "peak_memory": int,
    "time": str,
    "phase": str,
    "total_bytes": (int, type(None)),
    "bytes_per_second": int,
    "seconds_left": (int, type(None)),
    "fetched": int,
    "conversion": (dict, type(None)),
    "download": (dict, type(None)),
    "direction": str,
    "load_dir": str,
    "options": dict,
    "on_disk": int,
    "is_running": bool,
    "only": list,
    "is_whole": bool,
    "problems": list,
    "model_type": (str, type(None)),
    "rows": list,
    "left_over": list,
    "paths": list,
    "unplaced": list,
    "message": (str, type(None)),
    "hint": (str, type(None)),
    "faults": list,
}
_FILES = (
    {"path": str, "bytes": int, "tensors": int},
    {"path": str, "bytes": int, "checksum": str},
    {"path": str, "bytes": int, "compared": list, "problems": list},
    {"path": str, "bytes": int, "tensors": int, "written": int, "is_whole": bool},
    {"path": str, "bytes": int, "is_whole": bool},
)
"""Keys of a file, and their types."""


def check_object(kind: str, shown: dict[str, Any]) -> None:
    """Fail where an object lacks a key, has another one, or a value of another type."""
    assert shown.keys() == KEYS[kind]
    for key, value in shown.items():
        assert isinstance(value, _TYPES[key]), (key, value)
    for file in shown.get("files", []):
        assert {key: type(value) for key, value in file.items()} in _FILES
    assert "files" not in shown or sum(file["bytes"] for file in shown["files"]) == shown["bytes"]
