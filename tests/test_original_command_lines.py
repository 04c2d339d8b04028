"""The options that MindSpeed-LLM's public launch scripts pass are all understood by `mscvt convert`."""

import csv
import shlex
from pathlib import Path

import pytest

from command_line import make_source, run_main
from mscvt.cli.command_table import BY_NAME
from mscvt.cli.original import ORIGINAL
from mscvt.cli.words import read_words

with Path(__file__).with_name("original_command_lines.tsv").open(encoding="utf-8", newline="") as table:
    SCRIPTS = list(csv.DictReader(table, delimiter="\t"))
FOLDERS = ["--load-dir", "from", "--save-dir", "to"]
TYPES = {
    "hf2mg": ["--load-model-type", "hf", "--save-model-type", "mg"],
    "mg2hf": ["--load-model-type", "mg", "--save-model-type", "hf"],
}


def read(script):
    return read_words(BY_NAME["convert"], [*TYPES[script["direction"]], *FOLDERS, *shlex.split(script["options"])])


def is_lora(script):
    return "lora-" in script["options"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script["script"])
def test_command_line_of_the_original_is_understood(script):
    given = read(script)
    assert given.error is None
    words = shlex.split(script["options"])
    own = {flag: row.name for row in given.command.rows.values() for flag in row.flags}
    flags = [word for word in words if word.startswith("--")]
    assert {own[flag] for flag in flags if flag in own} <= given.values.keys()
    strangers = [flag for flag in flags if flag not in own]
    assert [note.split()[0] for note in given.notes] == strangers
    assert set(strangers) <= {"--params-dtype", "--save-layer-by-layer", "--ai-framework"}


def test_scripts_of_every_kind_are_there():
    assert len(SCRIPTS) == 51
    assert sum(map(is_lora, SCRIPTS)) == 4


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--params-dtype", "fp32"], "--params-dtype fp32: each tensor keeps its own type"),
        (["--params-dtype"], "--params-dtype: needs a value"),
        (["--save-layer-by-layer=1"], "--save-layer-by-layer 1: takes no value"),
        (["--ai-framework", "jax"], "--ai-framework jax: the files are the same for both"),
        (["--pipeline-model-parallel-layout", "E|t*3|L"], "--pipeline-model-parallel-layout: layouts of the pipeline"),
    ],
)
def test_option_of_the_original_is_refused_where_it_would_mean_something(words, fault):
    error = read_words(BY_NAME["convert"], [*FOLDERS, *words]).error
    assert error.message.startswith(f"mscvt convert: {fault}")


@pytest.mark.parametrize("name", ORIGINAL)
def test_option_of_the_original_is_taken_with_its_reason_or_refused_with_it(name):
    foreign = ORIGINAL[name]
    given = read_words(BY_NAME["convert"], [*FOLDERS, name, *[*foreign.values[:1], "1"][: foreign.least]])
    said = given.error.message if foreign.is_refused else " ".join(given.notes)
    assert (given.error is not None) == foreign.is_refused
    assert name in said
    assert foreign.why in said


def test_other_commands_don_t_take_the_original_s_options():
    for name in set(BY_NAME) - {"convert"}:
        for flag in ORIGINAL:
            assert flag in read_words(BY_NAME[name], [flag]).error.message + "".join(
                read_words(BY_NAME[name], [flag]).error.faults
            )


def test_notes_are_shown_and_sizes_of_one_say_nothing_on_the_way_back(tmp_path):
    hf = make_source("qwen3", tmp_path / "hf")
    there = ["--load-dir", hf, "--save-dir", tmp_path / "mg", "--params-dtype", "bf16", "--tp", "2"]
    outcome = run_main("convert", *there)
    assert outcome.code == 0
    assert "note: --params-dtype bf16 means nothing here: each tensor keeps its own type\n" in outcome.out
    back = ["--load-dir", tmp_path / "mg", "--save-dir", tmp_path / "back", "--dry-run", "--tp", "1", "--pp", "1"]
    for words in (["convert", *TYPES["mg2hf"]], ["mg2hf"]):
        outcome = run_main(*words, *back)
        assert outcome.code == 0, outcome.err
        for name in ("tensor", "pipeline"):
            assert f"note: --target-{name}-parallel-size 1 means nothing here: args of the check" in outcome.out
        contradicted = run_main(*words, *back[:-4], "--tp", "4")
        assert contradicted.code == 1
        assert "--target-tensor-parallel-size 4 contradicts the checkpoint" in contradicted.err
