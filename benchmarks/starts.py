"""How long commands take that move no weights, of a model so small that all of it is start.

Each figure is the least of several rounds, by processor time, beside Python that does nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from checkpoints import write_checkpoint
from memory import mscvt, run
from models import SPEED

EMPTY = "python"
ROUNDS = 5


def commands(hf: Path, mg: Path, target: Path) -> Mapping[str, Sequence[str | Path]]:
    """Name of a figure -> what is run."""
    there = ("--load-dir", hf, "--tp", "2")
    back = ("--load-dir", mg, "--hf-cfg-dir", hf)
    return {
        "--help": ("--help",),
        "hf2mg --help": ("hf2mg", "--help"),
        "plugins": ("plugins",),
        "check": ("check", hf),
        "inspect, of Hugging Face": ("inspect", hf),
        "inspect, of shards": ("inspect", mg),
        "plan hf2mg": ("plan", "hf2mg", *there),
        "plan mg2hf": ("plan", "mg2hf", *back),
        "hf2mg --dry-run": ("hf2mg", *there, "--save-dir", target, "--dry-run"),
        "mg2hf --dry-run": ("mg2hf", *back, "--save-dir", target, "--dry-run"),
    }


def measure(folder: Path | None, rounds: int) -> dict[str, float]:
    """Processor seconds of each command, and of Python alone.

    Args:
        folder: Where the model is made; None for the temporary folder.
        rounds: How often each is run.
    """
    model = SPEED["tiny"](1)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="mscvt-starts-", dir=folder) as made:
        hf, mg, new = (Path(made, name) for name in ("hf", "mg", "new"))
        write_checkpoint(hf, model)
        mscvt("hf2mg", "--load-dir", hf, "--save-dir", mg, *model.flags)
        for _ in range(rounds):
            seconds = {EMPTY: run([sys.executable, "-c", "pass"]).processor}
            for name, arguments in commands(hf, mg, new).items():
                seconds[name] = mscvt(*arguments).processor
            found = {name: min(one, found.get(name, one)) for name, one in seconds.items()}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the model is made; default: the temporary folder")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    given = parser.parse_args(arguments)
    found = measure(given.folder, given.rounds)
    print("| command | processor seconds | of python's start |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {seconds:.3f} | {seconds / found[EMPTY]:.1f} |")


if __name__ == "__main__":
    main()
