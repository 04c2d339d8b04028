"""Faults that differ only in numbers are shown as one line, and no number is lost or made up."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscvt.errors import Faults, MscvtError
from mscvt.errors.folding import fold
from mscvt.errors.nearest import did_you_mean, nearest


def names(layers, experts, part="up_proj"):
    return [f"model.layers.{layer}.mlp.experts.{e}.{part}.weight" for layer in layers for e in experts]


def test_every_combination_is_one_line():
    folded = fold(f"no rule takes: {name}" for name in names(range(8), range(8)))
    assert folded == ["no rule takes: model.layers.{0-7}.mlp.experts.{0-7}.up_proj.weight (64)"]


def test_combinations_that_are_incomplete_are_several_lines():
    lines = [*names(range(3), range(4)), *names([3], [0, 1, 2])]
    assert fold(lines) == [
        "model.layers.{0-2}.mlp.experts.{0-3}.up_proj.weight (12)",
        "model.layers.3.mlp.experts.{0-2}.up_proj.weight (3)",
    ]


def test_gaps_are_shown():
    lines = [f"layers.{layer}.bias" for layer in (0, 1, 2, 4, 9, 10, 11)]
    assert fold(lines) == ["layers.{0-2,4,9-11}.bias (7)"]


def test_lines_keep_their_order_and_two_alike_are_not_folded():
    lines = ["b 1", "a", "b 7", "c.0", "c.1", "c.2", "a.b"]
    assert fold(lines) == ["b 1", "b 7", "a", "c.{0-2} (3)", "a.b"]


def test_numbers_that_are_the_same_stay_as_they_are():
    lines = [f"layers.{n}.k_proj: has the shape [40, 48], expected [20, 48]" for n in range(16)]
    assert fold(lines) == ["layers.{0-15}.k_proj: has the shape [40, 48], expected [20, 48] (16)"]


def test_numbers_that_go_together_are_not_multiplied():
    lines = [f"decoder.layers.{n}: model.layers.{n}.up_proj is missing" for n in range(5)]
    assert fold(lines) == ["decoder.layers.{0-4}: model.layers.{0-4}.up_proj is missing (5)"]


def test_zeros_in_front_are_kept():
    lines = [f"mp_rank_{tp:02}_{pp:03}" for tp, pp in product(range(3), (8, 9, 10))]
    assert fold(lines) == ["mp_rank_{00-02}_{008-010} (9)"]
    assert fold(["x 9", "x 10", "x 09"]) == ["x {09,9-10} (3)"]


def test_digits_within_words_are_no_numbers():
    lines = [f"{part}.weight" for part in ("linear_fc1", "linear_fc2", "linear_fc3", "0x1", "0x2", "0x3")]
    assert fold(lines) == lines


def test_braces_in_lines_are_kept():
    assert fold([f"layers.{n}: no {{layer}}, {{}}" for n in range(3)]) == ["layers.{0-2}: no {layer}, {} (3)"]


def unfolded(line):
    """The lines that a folded one stands for, read from its braces alone."""
    body = re.sub(r" \(\d+\)$", "", line)
    parts = re.split(r"\{([\d,-]+)\}", body)
    sets = [[str(n) for run in part.split(",") for n in _run(run)] for part in parts[1::2]]
    for numbers in product(*sets):
        yield "".join(text + number for text, number in zip(parts[::2], [*numbers, ""], strict=True))


def _run(run):
    first, _, last = run.partition("-")
    return range(int(first), int(last or first) + 1)


@given(st.sets(st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from("ab")), max_size=60))
def test_folded_lines_stand_for_exactly_what_was_given(found):
    lines = [f"layers.{first}.experts.{13 + second}.{part}" for first, second, part in found]
    folded = fold(lines)
    assert sorted(each for line in folded for each in unfolded(line)) == sorted(lines)
    for line in folded:
        if "{" in line:
            assert int(line.rpartition(" (")[2].rstrip(")")) == len(list(unfolded(line)))


def test_error_keeps_every_fault_and_shows_them_folded():
    faults = Faults()
    for name in names(range(40), range(40)):
        faults.add(f"missing: {name}")
    with pytest.raises(MscvtError) as caught:
        faults.raise_if_any("no model")
    assert caught.value.message == "no model: 1600 faults"
    assert caught.value.faults == tuple(f"missing: {name}" for name in names(range(40), range(40)))
    assert str(caught.value).splitlines() == [
        "no model: 1600 faults",
        "  - missing: model.layers.{0-39}.mlp.experts.{0-39}.up_proj.weight (1600)",
    ]


def test_error_shows_no_more_lines_than_anybody_reads():
    error = MscvtError("much", faults=["x" * n for n in range(1, 301)])
    lines = str(error).splitlines()
    assert len(lines) == 102
    assert lines[-1] == "  - ... and 200 more lines like these"
    assert len(error.faults) == 300


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lama2", ["llama2"]),
        ("qwen3_moe", ["qwen3-moe"]),
        ("deepsek3", ["deepseek3"]),
        ("LLAMA2", ["llama2"]),
        ("llama", ["llama2"]),
        ("gpt9", []),
        ("", []),
        ("--", []),
    ],
)
def test_nearest_words_are_found(word, meant):
    assert nearest(word, ["deepseek2", "deepseek3", "llama2", "qwen3", "qwen3-moe"]) == meant


def test_question_names_what_was_meant():
    assert did_you_mean("--dype", ["--dtype", "--only"]) == "Did you mean --dtype?"
    assert did_you_mean("--zzz", ["--dtype", "--only"]) is None
