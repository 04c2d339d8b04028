"""How long planning takes at full size, and how much memory, from headers alone.

The files have holes where weights would be: a DeepSeek-V3 of 1.37 TB takes some megabytes of disk. Both ways are
planned and proven by `--dry-run`; nothing is converted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpoints import write_checkpoint
from memory import Measured, mscvt
from models import PLANNING, Model
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.plugins.registry import load_registry

_RESULTS = Path(__file__).resolve().parents[1] / "bench-results"
_SHARD_BYTES = 8_450_000_000
"""Makes 163 files of DeepSeek-V3, as its public release has."""


def blocks(folder: Path) -> int:
    """Bytes that the files of a folder really take."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def allocate(load_dir: Path, model: Model, save_dir: Path) -> float:
    """Make the Megatron checkpoint without its weights; returns how long that took."""
    conversion = prepare_to_megatron(Request(load_dir, model.options), load_registry())
    began = time.perf_counter()
    for file in conversion.plan.files:
        path = save_dir / file.path
        path.parent.mkdir(parents=True)
        conversion.allocate(path, file)
    conversion.finish(save_dir)
    return time.perf_counter() - began


def summary(measured: Measured) -> dict[str, Any]:
    """What a dry run took and what it would do."""
    plan = json.loads(measured.output)
    return {
        "seconds": measured.seconds,
        "processor": measured.processor,
        "private_bytes": measured.anonymous,
        "files": len(plan["files"]),
        "tensors": sum(file["tensors"] for file in plan["files"]),
        "bytes": plan["bytes"],
    }


def measure_model(model: Model, folder: Path) -> dict[str, Any]:
    """Plan both ways.

    Raises:
        SystemExit: Where the file system fills the holes.
    """
    hf, mg = folder / "hf", folder / "mg"
    source_bytes = write_checkpoint(hf, model, limit=_SHARD_BYTES, sparse=True)
    if blocks(hf) > 1 << 30:
        sys.exit(f"{folder}: the file system has no files with holes; choose another with --folder")
    dry = ("--dry-run", "--json")
    found: dict[str, Any] = {"source_bytes": source_bytes, "source_files": len(list(hf.glob("*.safetensors")))}
    found["hf2mg"] = summary(mscvt("hf2mg", "--load-dir", hf, "--save-dir", mg, *model.flags, *dry))
    found["allocate_seconds"] = allocate(hf, model, mg)
    found["allocated_disk_bytes"] = blocks(mg)
    found["mg2hf"] = summary(mscvt("mg2hf", "--load-dir", mg, "--save-dir", folder / "back", "--hf-cfg-dir", hf, *dry))
    return found


_COLUMNS = ("model", "source", "direction", "output", "seconds", "private MiB", "allocating the output")


def rows(name: str, found: dict[str, Any]) -> str:
    """A model's figures as rows of a Markdown table, with `_COLUMNS`."""
    source, to, back = found["source_bytes"], found["hf2mg"], found["mg2hf"]
    shown = []
    for direction, s, size, files, allocating in (
        ("hf2mg", to, source, found["source_files"], f"{found['allocate_seconds']:.1f} s"),
        ("mg2hf", back, to["bytes"], to["files"], ""),
    ):
        cells = (
            name,
            f"{size / 1e9:,.0f} GB, {files} files",
            direction,
            f"{s['bytes'] / 1e9:,.0f} GB, {s['files']} files, {s['tensors']:,} tensors",
            f"{s['seconds']:.1f}",
            f"{s['private_bytes'] / 2**20:.0f}",
            allocating,
        )
        shown.append(f"| {' | '.join(cells)} |")
    return "\n".join(shown)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, print it, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name in PLANNING if name != "tiny"]
    parser.add_argument("--model", choices=PLANNING, action="append", help="default: all but tiny")
    parser.add_argument("--folder", type=Path, help="where the files are made; default: the temporary folder")
    parser.add_argument("--output", type=Path, default=_RESULTS / "planning.json", help="JSON file")
    given = parser.parse_args(arguments)
    start = mscvt("plugins")
    report: dict[str, Any] = {
        "empty_start_seconds": start.seconds,
        "models": {},
    }
    print(f"empty start {report['empty_start_seconds']:.2f} s\n")
    print(f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|", flush=True)
    for name in given.model or names:
        with tempfile.TemporaryDirectory(prefix="mscvt-planning-", dir=given.folder) as folder:
            report["models"][name] = measure_model(PLANNING[name](), Path(folder))
        print(rows(name, report["models"][name]), flush=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {given.output}")


if __name__ == "__main__":
    main()
