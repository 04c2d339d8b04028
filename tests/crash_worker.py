"""Kills conversions and takes their disk away; run as a script, prints what it saw as JSON.

    python crash_worker.py DIRECTION FOLDER

Every attempt is a fork of this process, which has imported everything and has no threads: a kill costs
milliseconds, not the start of an interpreter.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mscvt.engine.blocks import Block
from mscvt.engine.sinks import FileSink
from mscvt.errors import MscvtError
from small_conversions import PARTS, Sources, convert, hidden, journalled, make_sources, tree

KILLS = 20
put = FileSink.put


def fork(attempt: Callable[[], str]) -> tuple[int, int]:
    """Run an attempt in a child; returns its number and a pipe that gives what it returned."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, attempt().encode())
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    return child, reading


def wait(child: int, reading: int) -> tuple[int, str]:
    """How an attempt ended: its exit code, or minus the signal, and what it returned."""
    said = b""
    while chunk := os.read(reading, 1 << 16):
        said += chunk
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode()


def run(direction: str, sources: Sources, target: Path) -> str:
    """Convert, or go on; returns how many units were there before."""
    os.fsync = lambda descriptor: None  # a killed process loses nothing that it has written
    FileSink.put = slow_put
    return str(convert(direction, sources, target).resumed_tensors)


def slow_put(self: FileSink, block: Block, data: torch.Tensor) -> int:
    """Write a block as slowly as if it were a thousand times larger, so that most kills hit the writing."""
    time.sleep(0.002)
    return put(self, block, data)


def kill_at_random(direction: str, sources: Sources, folder: Path, whole: dict[str, bytes]) -> dict[str, Any]:
    """Kill runs and repeat them, until so many were killed and one more conversion has ended."""
    target = folder / "killed"
    began = time.monotonic()
    assert wait(*fork(lambda: run(direction, sources, folder / "timed")))[0] == 0
    seconds = time.monotonic() - began
    draw = random.Random(20)
    seen: dict[str, Any] = {"kills": 0, "ends": 0, "resumed": 0, "different": 0, "partial": 0, "left": []}
    while seen["kills"] < KILLS or seen["ends"] == 0 or target.exists() or hidden(target).exists():
        child, reading = fork(lambda: run(direction, sources, target))
        if seen["kills"] < KILLS:
            time.sleep(draw.uniform(0.1, 0.75) * seconds)
            os.kill(child, signal.SIGKILL)
        status, said = wait(child, reading)
        seen["kills"] += status == -signal.SIGKILL
        seen["resumed"] += status == 0 and int(said) > 0
        seen["partial"] += journalled(target) > 0
        if target.exists():
            seen["different"] += tree(target) != whole
        if status == 0:
            seen["left"] += [path.name for path in folder.iterdir() if path == hidden(target)]
        if status == 0 or (target.exists() and not (hidden(target) / "conversion.json").exists()):
            seen["ends"] += 1  # the second: killed when nothing was left to be done
            shutil.rmtree(target)
        elif status != -signal.SIGKILL:
            raise SystemExit(f"an attempt ended with {status}")
    return seen


def limit_file_size(direction: str, sources: Sources, folder: Path, whole: dict[str, bytes]) -> dict[str, Any]:
    """Let no file grow beyond a limit that the output's largest file exceeds, then lift it."""
    target = folder / "limited"

    def limited() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = max(map(len, whole.values())) * 2 // 3
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            return run(direction, sources, target)
        except MscvtError as error:
            return f"{error} / {error.hint}"

    _, said = wait(*fork(limited))
    there = target.exists()
    status, _ = wait(*fork(lambda: run(direction, sources, target)))
    return {"error": said, "there": there, "status": status, "is_equal": tree(target) == whole}


def write_parts(direction: str, sources: Sources, folder: Path, whole: dict[str, bytes]) -> dict[str, Any]:
    """Write all parts at the same time, one of them twice; its second run is refused, or comes too late to be."""
    target = folder / "parts"

    def part(only: str) -> str:
        os.fsync = lambda descriptor: None
        FileSink.put = slow_put
        try:
            return str(convert(direction, sources, target, only=only).is_complete)
        except MscvtError as error:
            return error.message

    parts = PARTS[direction]
    ends = [wait(*attempt) for attempt in [fork(partial(part, only)) for only in (*parts, parts[0])]]
    return {"ends": ends, "is_equal": tree(target) == whole, "is_hidden_gone": not hidden(target).exists()}


def main(direction: str, folder: Path) -> None:
    """Do all of it, and print what was seen."""

    def make() -> str:
        make_sources(folder)
        run(direction, sources, folder / "whole")
        return ""

    sources = Sources(folder / "hf", folder / "mg")
    assert wait(*fork(make))[0] == 0
    whole = tree(folder / "whole")
    report = {
        "kills": kill_at_random(direction, sources, folder, whole),
        "parts": write_parts(direction, sources, folder, whole),
        "limit": limit_file_size(direction, sources, folder, whole),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
