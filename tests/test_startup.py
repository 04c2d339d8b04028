"""What only answers a question answers at once: nothing heavy is imported for it.

`benchmarks/starts.py` measures it: `--help` takes 7 times as long as Python that does nothing, a plan of a small model
10 times; torch alone would add 1 to 2 s. Times differ from machine to machine, so what is imported is tested.
"""

import subprocess
import sys

import pytest

from command_line import make_source, run_main

HEAVY = {"torch", "numpy", "safetensors", "transformers", "pydantic", "rich", "huggingface_hub"}
PROGRAM = """
import sys
from mscvt.cli.main import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
TYPER = {"typer", "click"}
"""What shows help and completes words; a command runs without it."""
SPARED = {"argparse", "difflib", "subprocess"}
"""What looking does without of the standard library, 2 to 6 ms each."""
QUESTIONS = [
    "--help",
    "--version",
    "plugins",
    *(
        f"{command} --help"
        for command in (
            "hf2mg",
            "mg2hf",
            "plan",
            "convert",
            "verify",
            "download",
            "check",
            "status",
            "discard",
            "inspect",
            "recipes",
            "names",
            "new-plugin",
            "plugins",
        )
    ),
]


LOOKS = {
    "check": ("check", "hf"),
    "inspect hf": ("inspect", "hf"),
    "inspect mg": ("inspect", "mg"),
    "names": ("names", "hf"),
    "plan hf2mg": ("plan", "hf2mg", "--load-dir", "hf", "--tp", "2"),
    "plan mg2hf": ("plan", "mg2hf", "--load-dir", "mg", "--hf-cfg-dir", "hf"),
    "plan mg2mg": ("plan", "mg2mg", "--load-dir", "mg", "--tp", "2"),
    "hf2mg --dry-run": ("hf2mg", "--load-dir", "hf", "--save-dir", "new", "--dry-run"),
    "mg2hf --dry-run": ("mg2hf", "--load-dir", "mg", "--save-dir", "new", "--dry-run"),
}
"""Commands that look at checkpoints, and move no byte of a weight."""
NEEDLESS = (
    *("mscvt.engine", "mscvt.hubs.huggingface", "mscvt.executors", "mscvt.authoring", "mscvt.testing"),
    *("mscvt.jobs.conversion", "mscvt.jobs.comparison", "mscvt.jobs.parts", "mscvt.jobs.download"),
    *("mscvt.formats.peft.reader", "mscvt.jobs.adapters", "mscvt.jobs.trained_factors", "mscvt.jobs.prepare_factors"),
    *("mscvt.formats.megatron_dist.checkpoint", "mscvt.formats.torch_zip.pickler", "mscvt.jobs.prepare_plain"),
    "mscvt.dialects.megatron",
    *("mscvt.views.page", "mscvt.views.drawing", "mscvt.views.shard", "mscvt.views.way", "mscvt.plugins.recipes"),
)
"""What none of these needs, with what is in it: moving bytes, LoRA, other formats, another dialect, more views."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with a model on both sides."""
    folder = tmp_path_factory.mktemp("started")
    hf = make_source("qwen3", folder / "hf")
    assert run_main("hf2mg", "--load-dir", hf, "--save-dir", folder / "mg").code == 0
    return folder


def imported_by(program, *arguments, cwd=None):
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    return result, set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("question", QUESTIONS)
def test_nothing_heavy_is_imported_when_only_asked(question):
    result, modules = imported_by(PROGRAM, *question.split())
    assert result.returncode == 0, result.stderr
    assert "mscvt" in result.stdout
    assert "mscvt.cli.main" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_looks_at_a_checkpoint_imports_no_more_than_it_needs(look, checkpoints):
    result, modules = imported_by(PROGRAM, *look, cwd=checkpoints)
    assert result.returncode == 0, result.stderr
    assert modules & (HEAVY | TYPER | SPARED) == set()
    needless = tuple(f"{name}." for name in NEEDLESS)
    assert [name for name in sorted(modules) if f"{name}.".startswith(needless)] == []


def test_nothing_heavy_is_imported_when_an_option_is_wrong():
    result, modules = imported_by(PROGRAM, "hf2mg", "--laod-dir", "x")
    assert result.returncode == 2
    assert modules & HEAVY == set()


def test_interface_for_plugins_imports_nothing_heavy():
    _, modules = imported_by("import sys, mscvt; print(*sys.modules, file=sys.stderr)")
    assert "mscvt.model.family" in modules
    assert modules & HEAVY == set()


MOVES = """
import sys
from mscvt.cli.main import main
try:
    main()
except SystemExit as end:
    print(end.code, *sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with experts on both sides, of which shards in either format are made."""
    folder = tmp_path_factory.mktemp("model")
    make_source("qwen3-moe", folder / "hf")
    for name, form in (("shards", "torch"), ("distributed", "torch_dist")):
        target = ["--save-dir", folder / name, "--dialect", "megatron", "--ckpt-format", form]
        assert run_main("hf2mg", "--load-dir", folder / "hf", "--tp", 2, "--ep", 2, *target).code == 0
    return folder


@pytest.mark.parametrize(
    ("command", "is_computed"),
    [
        ("hf2mg --load-dir hf --tp 2 --ep 2 --moe-grouped-gemm --verify", False),
        ("hf2mg --load-dir hf --tp 2 --dialect megatron --ckpt-format torch_dist", False),
        ("mg2hf --load-dir shards --hf-cfg-dir hf", False),
        ("mg2hf --load-dir distributed --hf-cfg-dir hf", False),
        ("mg2mg --load-dir shards --tp 1", False),
        ("hf2mg --load-dir hf --tp 2 --dtype fp32", True),
    ],
)
def test_torch_is_loaded_for_what_is_computed_and_not_for_what_is_moved(command, is_computed, model, tmp_path):
    words = [str(model / word) if (model / word).exists() else word for word in command.split()]
    result, modules = imported_by(MOVES, *words, "--save-dir", str(tmp_path / "out"))
    assert "0" in modules, result.stderr
    assert ("torch" in modules) == is_computed
