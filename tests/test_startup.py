"""What only answers a question answers at once: nothing heavy is imported for it.

Measured on 2 cores: `--help` 0.13 s, `hf2mg --help` 0.12 s, `plugins` 0.17 s; torch alone would add 1 to 2 s.
Times differ from machine to machine, so what is imported is tested.
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


def imported_by(program, *arguments):
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return result, set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("question", QUESTIONS)
def test_nothing_heavy_is_imported_when_only_asked(question):
    result, modules = imported_by(PROGRAM, *question.split())
    assert result.returncode == 0, result.stderr
    assert "mscvt" in result.stdout
    assert "mscvt.cli.main" in modules
    assert modules & HEAVY == set()


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
