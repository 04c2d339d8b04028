"""Running a command and watching the private memory of its processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a command."""

    seconds: float
    """From its start to its end, as a user sees it."""
    processor: float
    """Seconds of work of all its threads and processes, in user and system mode."""
    anonymous: int
    """The most bytes of private memory (RssAnon of all its processes) that were seen at once."""
    output: str
    """What it wrote to stdout."""


def run(command: Sequence[str | Path]) -> Measured:
    """Run a command to its end.

    Raises:
        SystemExit: Where it fails, with what it wrote to stderr.
    """
    # Bytecode is cached, as it is wherever a package was installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, began = _worked(), time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    peak = 0
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, sum(map(_anonymous, _tree(process.pid))))
            ended.wait(SAMPLE_SECONDS)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - began
    ended.set()
    sampler.join()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nended with {process.returncode}:\n{errors}")
    return Measured(seconds, _worked() - before, peak, output)


def _worked() -> float:
    """Processor time of all processes that were started and have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def mscvt(*arguments: str | Path) -> Measured:
    """Run `mscvt` as a user would."""
    return run([sys.executable, "-m", "mscvt", *arguments])


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                found += map(int, Path(f"/proc/{parent}/task/{thread}/children").read_text().split())
        except OSError:  # it has just ended
            continue
    return found


def _anonymous(pid: int) -> int:
    """Private memory of a process in bytes; 0 where it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0
