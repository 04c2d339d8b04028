"""One round of all benchmarks, in some minutes, beside the committed figures.

Every figure is by processor time and relative to something measured in the same round on the same machine (`cp`, a copy
in memory, Python that does nothing), so that figures of machines can be compared. Lower is better.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import merging
import planning
import sources
import speed
import starts

COMMITTED = Path(__file__).with_name("figures.json")
_ROUNDS = 3
_TINY = "tiny-tensors"
_SPEED = ("--scenario", "qwen3-8b", "--scenario", _TINY, "--rounds", str(_ROUNDS))
_PLANNING = ("--model", "deepseek-v3")


def written_by(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> dict[str, float]:
    """The first figure of each row of a benchmark's table, as how many copies it takes."""
    said = io.StringIO()
    with redirect_stdout(said):
        main(arguments)
    cells = [line.strip("| ").split(" | ") for line in said.getvalue().splitlines() if line.startswith("| ")][1:]
    speeds = {row[0]: float(row[1]) for row in cells}
    copy = speeds.pop("copy")
    return {name: copy / value for name, value in speeds.items()}


def measure(
    folder: Path, speed_of: Sequence[str], planning_of: Sequence[str], rounds: int, small: Sequence[str]
) -> dict[str, float]:
    """Run all benchmarks; returns name -> figure."""
    at, output = ("--folder", str(folder)), folder / "report.json"
    speed.main([*speed_of, *at, "--output", str(output)])
    scenarios = json.loads(output.read_text())["scenarios"]
    tiny = scenarios.pop(_TINY)
    ((_, scenario),) = scenarios.items()
    found = {f"{way}, of cp": scenario[way]["ratio_processor"] for way in speed.DIRECTIONS}
    planning.main([*planning_of, *at, "--output", str(output)])
    report = json.loads(output.read_text())
    ((_, model),) = report["models"].items()
    output.unlink()
    started = starts.measure(folder, rounds)
    started |= {f"planning {way}": model[way]["processor"] for way in ("hf2mg", "mg2hf")}
    started |= {
        f"{way} of 10,000 tiny tensors": min(each["processor"] for each in tiny[way]["rounds"])
        for way in speed.DIRECTIONS
    }
    empty = started.pop(starts.EMPTY)
    found |= {f"{name}, of python's start": seconds / empty for name, seconds in started.items()}
    for main in (sources.main, merging.main):
        found |= {f"{name}, of a copy": figure for name, figure in written_by(main, small).items()}
    return found


def table(found: dict[str, float], committed: dict[str, float]) -> str:
    """Figures beside the committed ones, as a Markdown table."""
    rows = ["| figure | committed | now | ratio |", "|---|---|---|---|"]
    for name, figure in found.items():
        before = committed.get(name)
        against = ("", "") if before is None else (f"{before:.2f}", f"{figure / before:.2f}")
        rows.append(f"| {name} | {against[0]} | {figure:.2f} | {against[1]} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, compare, and with `--record` keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where files are made; default: as speed.py chooses")
    parser.add_argument("--record", action="store_true", help=f"write {COMMITTED.name} anew, to be committed")
    given = parser.parse_args(arguments)
    parent = speed.choose_folder(given.folder, 8_000_000_000)
    with tempfile.TemporaryDirectory(prefix="mscvt-figures-", dir=parent) as folder:
        found = measure(Path(folder), _SPEED, _PLANNING, starts.ROUNDS, ())
    print("\n" + table(found, json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}))
    if given.record:
        COMMITTED.write_text(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
