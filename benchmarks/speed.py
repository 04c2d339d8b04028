"""How fast conversions are next to `cp`, and how much memory they take.

Each round runs, one after the other, each with `cp -r` of what it wrote: hf2mg, mg2mg to another layout, mg2mg to a
distributed checkpoint, mg2hf from that, and mg2hf. The result of the way back is the source of the next round, so that
no more than three checkpoints exist at a time. What is read is in the page cache ("warm"), or with `--cold` on the disk
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from checkpoints import write_checkpoint
from memory import mscvt, run
from models import SPEED, Model
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.plugins.registry import load_registry

_RESULTS = Path(__file__).resolve().parents[1] / "bench-results"
DIRECTIONS = ("hf2mg", "mg2mg", "mg2mg to torch_dist", "mg2hf from torch_dist", "mg2hf")
_DISTRIBUTED = ["--dialect", "megatron", "--ckpt-format", "torch_dist", "--make-vocab-size-divisible-by", "1"]
_ASKED_FOR = "tiny", "qwen3-8b-disk"
_ROOM = 4
"""A folder needs room for so many times the source."""


@dataclass(frozen=True, slots=True)
class Round:
    """One conversion and the copy of its result; seconds."""

    total: float
    """The whole command."""
    converting: float
    """What the command itself reports: without start-up and planning."""
    copy: float
    """`cp -r` of what it wrote."""
    synced_copy: float
    """The same, and then until it has reached the disk; a conversion does that too, `cp` does not."""
    processor: float
    """Work of all the command's threads; other work on the machine changes it less than the time."""
    copy_processor: float
    written: int
    """Bytes of the result's files."""
    anonymous: int
    """Most bytes of private memory."""


def fetch_memory(folder: Path, nbytes: int) -> None:
    """Take so many bytes of memory (or disk) and give them back, so that whoever comes next finds them at hand.

    A virtual machine returns memory that is free for some seconds to its host, and getting it again takes longer
    than copying to it: without this, the command that runs after something was deleted would look faster.
    """
    ballast, block = folder / "ballast", bytes(1 << 24)
    with ballast.open("wb", buffering=0) as file:
        for start in range(0, nbytes, len(block)):
            file.write(block[: nbytes - start])
    ballast.unlink()


def forget(folder: Path) -> None:
    """Have the system drop what it keeps in memory of a folder's files, so that they are read from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(
    command: Sequence[str | Path], result: Path, expected: int, *, is_cold: bool, is_last: bool = False
) -> Round:
    """Run a conversion of which so many bytes are expected, and copy its result; the last one takes its source away."""
    source = Path(command[command.index("--load-dir") + 1])
    fetch_memory(result.parent, expected)
    if is_cold:
        forget(source)
    measured = mscvt(*command, "--save-dir", result, "--json")
    if is_last:
        shutil.rmtree(source)
    written = sum(path.stat().st_size for path in result.rglob("*") if path.is_file())
    copied = result.with_name("copy")
    fetch_memory(result.parent, written)
    if is_cold:
        forget(result)
    copy = run(["cp", "-r", result, copied])
    sync = run(["sync", "-f", copied])
    shutil.rmtree(copied)
    converting = json.loads(measured.output)["seconds"]
    return Round(
        total=measured.seconds,
        converting=converting,
        copy=copy.seconds,
        synced_copy=copy.seconds + sync.seconds,
        processor=measured.processor,
        copy_processor=copy.processor,
        written=written,
        anonymous=measured.anonymous,
    )


def measure_model(
    model: Model, folder: Path, rounds: int, workers: int | None, *, is_cold: bool = False, has_mg2mg: bool = True
) -> dict[str, list[Round]]:
    """Convert a model all ways, so many times."""
    measured, last = partial(measure, is_cold=is_cold), partial(measure, is_cold=is_cold, is_last=True)
    hf, mg, other = folder / "hf", folder / "mg", folder / "other"
    how = [] if workers is None else ["--workers", str(workers)]
    write_checkpoint(hf, model)
    config = folder / "config"
    config.mkdir()
    shutil.copy(hf / "config.json", config)
    found: dict[str, list[Round]] = {direction: [] for direction in (DIRECTIONS if has_mg2mg else ("hf2mg", "mg2hf"))}
    back = ["--hf-cfg-dir", config, *how]
    expected = prepare_to_megatron(Request(hf, model.options), load_registry()).plan.nbytes
    for _ in range(rounds):
        found["hf2mg"].append(last(["hf2mg", "--load-dir", hf, *model.flags, *how], mg, expected))
        if has_mg2mg:
            found["mg2mg"].append(measured(["mg2mg", "--load-dir", mg, "--tp", "1", *how], other, expected))
            shutil.rmtree(other)
            distributed = ["mg2mg", "--load-dir", mg, *_DISTRIBUTED, *how]
            found["mg2mg to torch_dist"].append(measured(distributed, other, expected))
            found["mg2hf from torch_dist"].append(last(["mg2hf", "--load-dir", other, *back], hf, model.nbytes))
            shutil.rmtree(hf)
        found["mg2hf"].append(last(["mg2hf", "--load-dir", mg, *back], hf, model.nbytes))
    return found


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Medians, and the ratios round by round."""
    ratios = {
        "ratio": [r.total / r.copy for r in rounds],
        "ratio_without_start": [r.converting / r.copy for r in rounds],
        "ratio_synced": [r.total / r.synced_copy for r in rounds],
        "ratio_processor": [r.processor / r.copy_processor for r in rounds],
    }
    return {
        "seconds": median(r.total for r in rounds),
        "seconds_without_start": median(r.converting for r in rounds),
        "copy_seconds": median(r.copy for r in rounds),
        "synced_copy_seconds": median(r.synced_copy for r in rounds),
        "written_bytes": rounds[-1].written,
        "gigabytes_per_second": median(r.written / r.total / 1e9 for r in rounds),
        "private_bytes": max(r.anonymous for r in rounds),
        **{name: median(values) for name, values in ratios.items()},
        "ratios": [round(value, 3) for value in ratios["ratio"]],
        "rounds": [asdict(r) for r in rounds],
    }


_COLUMNS = (
    "scenario",
    "direction",
    "writes GB",
    "seconds",
    "without start",
    "`cp`",
    "ratio",
    "without start",
    "of `cp` and sync",
    "by processor time",
    "GB/s",
    "private MiB",
    "rounds",
)


def row(name: str, direction: str, s: dict[str, Any]) -> str:
    """A conversion's figures as a row of a Markdown table, with `_COLUMNS`."""
    measured = (
        s["written_bytes"] / 1e9,
        s["seconds"],
        s["seconds_without_start"],
        s["copy_seconds"],
        s["ratio"],
        s["ratio_without_start"],
        s["ratio_synced"],
        s["ratio_processor"],
        s["gigabytes_per_second"],
    )
    cells = [name, direction, *(f"{value:.2f}" for value in measured), f"{s['private_bytes'] / 2**20:.0f}"]
    return f"| {' | '.join(cells)} | {' '.join(f'{ratio:.2f}' for ratio in s['ratios'])} |"


def choose_folder(given: Path | None, needed: int) -> Path:
    """Where to measure: what was asked for, else shared memory if it has room, else the temporary folder."""
    memory = Path("/dev/shm")
    if given is None and memory.is_dir() and shutil.disk_usage(memory).free > needed:
        given = memory
    chosen = given or Path(tempfile.gettempdir())
    if (free := shutil.disk_usage(chosen).free) < needed:
        sys.exit(f"{chosen} has {free / 1e9:.1f} GB free, the measurement needs {needed / 1e9:.1f} GB")
    return chosen


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on."""
    return run(["stat", "--file-system", "--format=%T", folder]).output.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, print it, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name in SPEED if name not in _ASKED_FOR]
    parser.add_argument(
        "--scenario", choices=SPEED, action="append", help=f"model; default: all but {' and '.join(_ASKED_FOR)}"
    )
    parser.add_argument("--folder", type=Path, help="where to measure; default: /dev/shm if it has room, else tmp")
    parser.add_argument("--cold", action="store_true", help="what is read is not in memory; needs a disk's --folder")
    parser.add_argument("--no-mg2mg", action="store_true", help="hf2mg and mg2hf alone: half of the room")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=int, default=1, choices=(1, 2), help="2: twice the layers")
    parser.add_argument("--workers", type=int, help="threads of a conversion; default: mscvt's own")
    parser.add_argument("--output", type=Path, help="JSON file; default: one in bench-results/")
    given = parser.parse_args(arguments)
    models = {name: SPEED[name](given.scale) for name in given.scenario or names}
    parent = choose_folder(given.folder, _ROOM * max(model.nbytes for model in models.values()))
    start = min(mscvt("plugins").seconds for _ in range(2 if given.rounds > 1 else 1))
    report: dict[str, Any] = {
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "system": platform.platform(),
            "file_system": file_system(parent),
        },
        "scale": given.scale,
        "workers": given.workers,
        "cold": given.cold,
        "empty_start_seconds": start,
        "scenarios": {},
    }
    machine = report["machine"]
    print(f"{machine['cores']} cores, {machine['file_system']}, scale {given.scale}; empty start {start:.2f} s\n")
    print(f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|", flush=True)
    for name, model in models.items():
        with tempfile.TemporaryDirectory(prefix="mscvt-speed-", dir=parent) as folder:
            found = measure_model(
                model, Path(folder), given.rounds, given.workers, is_cold=given.cold, has_mg2mg=not given.no_mg2mg
            )
        report["scenarios"][name] = {"source_bytes": model.nbytes}
        for direction, rounds in found.items():
            report["scenarios"][name][direction] = summary(rounds)
            print(row(name, direction, report["scenarios"][name][direction]), flush=True)
    output = given.output or _RESULTS / f"speed-{machine['file_system']}{'-cold' * given.cold}-{given.scale}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
