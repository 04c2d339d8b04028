"""What only answers a question answers at once: nothing heavy is imported for it.

Measured on 2 cores: `--help` 0.13 s, `hf2mg --help` 0.12 s, `plugins` 0.17 s; torch alone would add 1 to 2 s.
Times differ from machine to machine, so what is imported is tested.
"""

import subprocess
import sys

import pytest

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
