"""Help, version and completion of the command line."""

import os
import re
import subprocess
import sys

import pytest

from command_line import run_main
from mscvt import __version__
from mscvt.cli.command_table import BY_NAME

COMMANDS = (
    "hf2mg",
    "mg2hf",
    "mg2mg",
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


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_fits_for_each_command(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = run_main(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    example = outcome.out.partition("Example:\n")[2]
    assert example.split()[:2] == ["mscvt", command]
    assert max(map(len, outcome.out.splitlines())) <= 80


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_help_writes_options_out_in_any_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    words = run_main("hf2mg", "--help").out.split()
    assert {row.flag for row in BY_NAME["hf2mg"].rows.values()} <= set(words)
    assert words.count("[required]") == 2
    assert "<bool>" not in words


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_all_that_the_rows_say(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    said = "".join(run_main(command, "--help").out.split())
    for row in BY_NAME[command].rows.values():
        otherwise = BY_NAME[command].otherwise(row)
        expected = [f"{row.flag}{row.metavar}", row.help]
        if not row.is_required and otherwise:
            expected.append(f"Default: {otherwise}.")
        for text in expected:
            assert text.replace(" ", "") in said
    assert BY_NAME[command].text.replace(" ", "") in said


def test_help_of_the_way_back_says_that_the_checkpoint_knows_its_own_layout():
    said = " ".join(run_main("mg2hf", "--help").out.split())
    assert "TP: rows or columns of matrices are divided among N ranks. Default: what args record." in said


def test_help_puts_folders_first_and_running_last():
    text = run_main("convert", "--help").out
    titles = [line for line in text.splitlines() if re.fullmatch(r"[A-Z].*:", line)]
    assert titles == [
        "Checkpoints:",
        "Parallel layout:",
        "Tensors:",
        "Layers:",
        "Sizes that config.json lacks:",
        "Values:",
        "LoRA:",
        "Running:",
    ]
    flags = [line.split()[0] for line in text.splitlines() if line.startswith("  -")]
    assert flags[:5] == ["--load-dir", "--save-dir", "--load-model-type", "--save-model-type", "--model-type-hf"]
    assert flags[-3:] == ["--json", "--debug", "-h,"]


def test_help_of_the_program_lists_commands_and_examples(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = run_main("--help")
    listed = outcome.out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert tuple(line.split()[0] for line in listed.splitlines()) == COMMANDS
    assert "..." not in listed
    assert all(f"    mscvt {command} --" in outcome.out for command in ("hf2mg", "mg2hf", "verify"))
    assert run_main("-h").out == outcome.out
    assert run_main("help").out == outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_as_a_command_is_the_help_of_a_command(command):
    assert run_main("help", command) == run_main(command, "--help")
    assert run_main(command, "--load-dir", "x", "-h") == run_main(command, "--help")


def test_no_arguments_show_the_help_and_are_wrong_usage():
    outcome = run_main()
    assert outcome.code == 2
    assert "Commands:" in outcome.out + outcome.err


def test_version_is_printed():
    for flag in ("--version", "-V"):
        assert run_main(flag).out == f"mscvt {__version__}\n"


def test_module_is_the_program():
    command = [sys.executable, "-m", "mscvt", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"mscvt {__version__}\n"


ENDING = """
import atexit, sys
from mscvt.cli import main as program
atexit.register(print, "at the end")
def main():
    print("shown")
    sys.exit({code!r})
program.main = main
program.run()
"""


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (2, 2), (130, 130), (None, 0), ("why", 1)])
def test_program_ends_at_once_with_its_code_and_all_that_it_printed(code, expected):
    command = [sys.executable, "-c", ENDING.format(code=code)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (expected, "shown\nat the end\n")
    assert done.stderr == ("why\n" if code == "why" else "")


@pytest.mark.parametrize(("given", "threads"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")])
def test_library_that_nothing_uses_makes_no_threads_unless_it_is_asked_to(given, threads):
    code = ENDING.format(code=0).replace('"shown"', '__import__("os").environ["OPENBLAS_NUM_THREADS"]')
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"} | given
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith(f"{threads}\n")


def completions(words, tmp_path):
    """What bash would be offered after these words, the last of which is not complete."""
    environment = {
        **os.environ,
        "_MSCVT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["mscvt", *words]),
        "COMP_CWORD": str(len(words)),
    }
    program = [sys.executable, "-m", "mscvt"]
    result = subprocess.run(program, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    return result.stdout.split()


def test_shell_completes_commands_options_choices_and_model_types(tmp_path):
    assert completions(["h"], tmp_path) == ["hf2mg"]
    assert set(completions(["hf2mg", "--target-"], tmp_path)) == {
        "--target-tensor-parallel-size",
        "--target-pipeline-parallel-size",
        "--target-expert-parallel-size",
    }
    assert completions(["hf2mg", "--load-dir", "x", "--dtype", "b"], tmp_path) == ["bf16"]
    assert completions(["mg2hf", "--model-type-hf", "qwen3"], tmp_path) == ["qwen3", "qwen3-moe", "qwen3-next"]
    assert completions(["hf2mg", "--recipe", "glm4"], tmp_path) == ["glm4.5", "glm4.5-air"]
    assert completions(["recipes", "glm4"], tmp_path) == ["glm4.5", "glm4.5-air"]
    assert completions(["plan", "m"], tmp_path) == ["mg2hf", "mg2mg"]


def test_script_for_completion_is_printed():
    environment = {**os.environ, "_MSCVT_COMPLETE": "source_bash"}
    program = [sys.executable, "-m", "mscvt"]
    result = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    assert "_MSCVT_COMPLETE=complete_bash" in result.stdout
    assert "--install-completion" in run_main("--help").out
