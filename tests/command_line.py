"""The command line as a user meets it: exit code, stdout, stderr, and what was left on the disk."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from golden_cases import CASES, build_source, load_case
from mscvt.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def run_main(*arguments: object) -> Outcome:
    """Run `mscvt` inside this process, from its own entry; anything but SystemExit passes through."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["mscvt", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    assert "mscvt itself failed" not in err.getvalue(), err.getvalue()
    return Outcome(code, out.getvalue(), err.getvalue())


def check_refused(command: str, load_dir: Path, save_dir: Path, options: list[str], fragments: list[str]) -> str:
    """Run a command that must end with an error that says all of this, and write nothing at all."""
    before = sorted(save_dir.parent.rglob("*"))
    outcome = run_main(command, "--load-dir", load_dir, "--save-dir", save_dir, *options)
    assert outcome.err.startswith("error: "), outcome.err
    is_usage = outcome.err.startswith(f"error: mscvt {command}: ")
    assert outcome.code == (2 if is_usage else 1), outcome
    assert "Traceback" not in outcome.err
    for fragment in fragments:
        assert fragment in outcome.err, f"{fragment!r} is not in\n{outcome.err}"
    assert sorted(save_dir.parent.rglob("*")) == before
    return outcome.err


SOURCES = {
    "llama2": "llama2_tp1",
    "qwen3": "qwen3_pp4_layer_list",
    "qwen3-moe": "qwen3_moe_tp2_ep2_local",
    "deepseek2": "deepseek2_tp2_pp2_ep2_gemm",
    "deepseek2-lite": "deepseek2_lite_tp2_ep4_gemm",
    "deepseek3": "deepseek3_reduced",
    "deepseek32": "deepseek32_tp2_pp2_ep2_mtp1_gemm",
}
"""Model type -> the golden case whose source the tests of this folder take."""


def make_source(model_type: str, folder: Path) -> Path:
    """Write the source of a model type."""
    return build_source(load_case(CASES / f"{SOURCES[model_type]}.json"), folder)
