"""What each rank of a checkpoint recorded beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.standins import Global, Recorded, described
from mscvt.records import dataclass

_OLDEST_VERSION = 2
"""Before, rows of q, k and v stood in another order (`fix_query_key_value_ordering` of Megatron's checkpointing.py)."""
_MAY_DIFFER = frozenset({"load", "save", "seed", "log_level"})
"""Arguments that may differ from rank to rank."""
_WORDS_THAT_MAY_DIFFER = frozenset(
    {"rank", "ranks", "device", "gpu", "host", "hostname", "node", "addr", "address", "port", "pid", "url"}
    | {"path", "paths", "dir", "dirs", "directory", "folder", "file", "files", "filename", "cache"}
    | {"time", "times", "timestamp", "date", "timing", "timers", "duration", "elapsed"}
    | {"logger", "wandb", "tensorboard", "profile", "profiler"}
)
"""Words in the names of arguments that may differ from rank to rank."""
_SHOWN = 100
_LIMIT = 1000
"""Values in one argument that are compared; those that matter are numbers and short lists."""


@dataclass(frozen=True, slots=True)
class RankRecord:
    """What a rank's file says of itself."""

    args: Mapping[str, Any]
    """The arguments of the run that saved it; empty where it has none."""
    checkpoint_version: float | None
    iteration: int | None
    comparable: Mapping[str, str | None]
    """Of `args`, what is the same on all ranks of a run, as text."""


def read_record(path: Path, state: Mapping[Any, Any]) -> RankRecord:
    """What a rank's file says of itself.

    Raises:
        MscvtError: Where it is not what a checkpoint has, or the weights are in an order that is not known.
    """
    args = state.get("args")
    if isinstance(args, Recorded):
        args = args.attributes
    elif args is None:
        args = {}
    elif not isinstance(args, dict):
        raise MscvtError(f"{path}: its args are {described(args)}, expected an argparse.Namespace")
    version, iteration = state.get("checkpoint_version"), state.get("iteration")
    if isinstance(version, (int, float)) and not version >= _OLDEST_VERSION:
        raise MscvtError(
            f"{path}: its checkpoint_version is {version!r:.40}; before 2, rows of q, k and v stood in another order",
            hint="Load it with the Megatron that wrote it and save it with a newer one, which reorders them.",
        )
    args = {name: value for name, value in args.items() if isinstance(name, str)}
    return RankRecord(
        args,
        float(version) if isinstance(version, (int, float)) else None,
        iteration if isinstance(iteration, int) else None,
        {name: _plain(value) for name, value in args.items() if not _may_differ(name)},
    )


def check_same_run(path: Path, record: RankRecord, first: Path, expected: RankRecord) -> None:
    """Compare two ranks' records.

    Raises:
        MscvtError: Where they can't be of one checkpoint.
    """
    hint = "Were two checkpoints saved into one folder, or is a copy incomplete?"
    if record.iteration != expected.iteration:
        raise MscvtError(
            f"{path}: is of iteration {record.iteration}, {first} of iteration {expected.iteration}", hint=hint
        )
    if record.comparable == expected.comparable:
        return
    faults = [
        f"{name[:100]!r} is {_shown(record.args.get(name))}, expected {_shown(expected.args.get(name))}"
        for name in sorted(record.comparable.keys() | expected.comparable.keys())
        if record.comparable.get(name, "None") != expected.comparable.get(name, "None")
    ]
    if faults:
        raise MscvtError(f"{path}: its args differ from those of {first}", faults=faults[:_SHOWN], hint=hint)


def _may_differ(name: str) -> bool:
    return name in _MAY_DIFFER or not _WORDS_THAT_MAY_DIFFER.isdisjoint(name.lower().split("_"))


def _plain(value: Any) -> str | None:
    """A value as text that is equal where the value is; None where it is no plain value, or a large one."""
    left, todo, said = _LIMIT, [value], []
    while todo:
        item = todo.pop()
        left -= 1
        if isinstance(item, (list, tuple)) and len(item) < left:
            todo += [*item, len(item)]
        elif isinstance(item, (set, frozenset)) and len(item) < left:
            said.append(str(sorted(map(repr, item))))
        elif isinstance(item, (str, bytes)):
            said.append(repr(item[:_LIMIT]))
        elif isinstance(item, (bool, int, float, type(None))):
            said.append(repr(item))
        elif isinstance(item, Global):
            said.append(str(item))
        elif isinstance(item, Recorded) and left > 0:
            said.append(item.kind)
            todo.append(item.arguments)
        else:
            return None
        if left <= 0:
            return None
    return " ".join(said)


def _shown(value: Any) -> str:
    text = value if isinstance(value, (int, float, str, bool, type(None))) else described(value)
    return repr(text)[:100] if text is value else str(text)
