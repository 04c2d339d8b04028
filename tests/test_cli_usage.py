"""Command lines that can't be understood: everything wrong is said at once, and what to do about it."""

import pytest

from command_line import run_main
from mscvt.cli.command_table import COMMANDS
from mscvt.model.values import KINDS


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["hf2mg", "--target-tensor-paralel-size", "2"], "--target-tensor-parallel-size"),
        (["convert", "--noop-layer", "3"], "--noop-layers"),
        (["hf2mg", "--laod-dir", "x"], "--load-dir"),
        (["hf2mg", "--tpp", "2"], "--tp"),
        (["verify", "--hff", "x"], "--hf"),
        (["hf2gm"], "hf2mg"),
        (["--versoin"], "--version"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_usage_is_answered_with_a_suggestion(arguments, suggestion):
    outcome = run_main(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"Did you mean {suggestion}?" in outcome.err or f" or {suggestion}?" in outcome.err
    assert "--help` shows all" in outcome.err


FOLDERS = ["--load-dir", "hf", "--save-dir", "mg"]
ALL = "`mscvt hf2mg --help` shows all options."


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ([], "missing: --load-dir DIR, --save-dir DIR", ""),
        (["--load-dir", "hf"], "missing: --save-dir DIR", ""),
        ([*FOLDERS, "--only"], "--only: needs a value", "--only PART is how it is written. "),
        ([*FOLDERS, "--only", "--quiet"], "--only: needs a value", "--only PART is how it is written. "),
        ([*FOLDERS, "--json=yes"], "--json=yes: takes no value", "--json alone switches it on. "),
        ([*FOLDERS, "--tp", "two"], "--tp two: expected a whole number, such as --tp 2", ""),
        ([*FOLDERS, "--tp=1.5"], "--tp 1.5: expected a whole number, such as --tp 2", ""),
        (
            [*FOLDERS, "--noop-layers", "3;4"],
            "--noop-layers '3;4': expected whole numbers with commas between them, such as --noop-layers 3,4,4,3",
            "",
        ),
        (
            [*FOLDERS, "--noop-layers", "94", "95"],
            "--noop-layers 94 95: lists have commas and no blanks",
            "Write --noop-layers 94,95. ",
        ),
        (
            [*FOLDERS, "--max-memory", "1XB"],
            "--max-memory 1XB: expected a number of bytes, such as --max-memory 64MiB",
            "",
        ),
        (
            [*FOLDERS, "--max-memory", "1KiB"],
            "--max-memory 1024: must be at least 65536",
            "Give --max-memory a number of at least 65536, or leave it out. ",
        ),
        (
            [*FOLDERS, "--dtype", "bfloat16"],
            "--dtype bfloat16: must be one of bf16, fp16, fp32",
            "Did you mean bf16? ",
        ),
        (
            [*FOLDERS, "--transformer-impl", "te"],
            "--transformer-impl te: must be one of local, transformer_engine",
            "Choose one of these, or leave out --transformer-impl. ",
        ),
        (
            [*FOLDERS, "--tp", "2", "--tp", "2", "--tp", "4"],
            "--target-tensor-parallel-size is given twice, as 2 and as 4",
            "Leave out one of them. ",
        ),
        (
            ["--load-dir", "hf", "--save-dir", "mg", "--only", ""],
            "--only: needs a value",
            "--only PART is how it is written. ",
        ),
        (
            [*FOLDERS, "--noop-layers", ""],
            "--noop-layers: needs a value",
            "--noop-layers N,N,... is how it is written. ",
        ),
        (
            [*FOLDERS, "--hf-dir", "x"],
            "--hf-dir: is no option of hf2mg",
            "--hf-dir is one of mg2hf, plan, convert, inspect. ",
        ),
        (
            [*FOLDERS, "--save-layer-by-layer"],
            "--save-layer-by-layer: is no option of hf2mg",
            "Leave it out: memory does not grow with the model. ",
        ),
        ([*FOLDERS, "x y"], "'x y': belongs to no option", "Every value follows the option that it belongs to. "),
        ([*FOLDERS, "--", "x"], "-- x: belong to no option", "Every value follows the option that it belongs to. "),
        ([*FOLDERS, "--nonsense", "7"], "--nonsense: no such option", ""),
    ],
)
def test_wrong_command_line_is_refused_with_what_to_do(words, error, hint):
    outcome = run_main("hf2mg", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: mscvt hf2mg: {error}\nhint: {hint}{ALL}\n"


def test_everything_that_is_wrong_with_a_command_line_is_said_at_once():
    outcome = run_main("hf2mg", "m/a model", "o/x", "--tpp", "2", "--workers", "0")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines() == [
        "error: mscvt hf2mg: 4 faults",
        f"hint: {ALL}",
        "  - --tpp: no such option. Did you mean --pp or --tp?",
        "  - 'm/a model' o/x: belong to no option. "
        "Folders follow their options: --load-dir 'm/a model' --save-dir o/x.",
        "  - missing: --load-dir DIR, --save-dir DIR",
        "  - --workers 0: must be at least 1. Give --workers a number of at least 1, or leave it out.",
    ]


def wrong_value(row):
    """A value that a row of any kind must refuse, and words that its error has."""
    if row.is_switch:
        return "=x", "takes no value"
    if row.choices:
        return "=x", "must be one of"
    if row.least is not None:
        return f"={row.least - 1}", f"must be at least {row.least}"
    return ("=1;2", "expected") if row.kind is KINDS[tuple[int, ...]] else ("=", "needs a value")


@pytest.mark.parametrize(("name", "row"), [(c.name, row) for c in COMMANDS for row in c.rows.values()])
def test_every_option_refuses_a_wrong_value_by_its_name(name, row):
    value, said = wrong_value(row)
    for flag in row.flags:
        outcome = run_main(name, f"{flag}{value}")
        assert (outcome.code, outcome.out) == (2, "")
        (line,) = [line for line in outcome.err.splitlines() if said in line]
        assert flag in line or row.flag in line
