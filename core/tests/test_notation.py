"""The notation of layouts: what it means, and what is wrong with what is none, and where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscvt.errors import MscvtError
from mscvt.layout.notation import Span, axes_of, evaluate, parse


def shown(pattern):
    """A pattern's runs of rows, dimensions as lists of `axis[start:stop]`."""
    return [
        [[f"{s.axis}[{s.start}:{s.stop}]" if (s.start, s.stop) != ("0", "") else s.axis for s in g] for g in groups]
        for groups in parse(pattern)
    ]


@pytest.mark.parametrize(
    ("pattern", "meaning"),
    [
        ("hidden", [[["hidden"]]]),
        ("(group slot channel) hidden", [[["group", "slot", "channel"], ["hidden"]]]),
        ("hidden(head channel)", [[["hidden"], ["head", "channel"]]]),
        ("  expert  ( half   ffn ) ", [[["expert"], ["half", "ffn"]]]),
        ("rows 1 kernel", [[["rows"], [], ["kernel"]]]),
        ("1", [[[]]]),
        ("a[2]", [[["a[2:2 + 1]"]]]),
        ("a[n + 1] b", [[["a[n + 1:n + 1 + 1]"], ["b"]]]),
        ("a[:n]", [[["a[0:n]"]]]),
        ("a[n:]", [[["a[n:]"]]]),
        ("a[:]", [[["a"]]]),
        ("a[ 2 * n : m * k + 1 ]", [[["a[2 * n:m * k + 1]"]]]),
        ("(a b) x | c x", [[["a", "b"], ["x"]], [["c"], ["x"]]]),
        (
            "(s[0] n) x|(s[1:] n) x | (s n) x",
            [[["s[0:0 + 1]", "n"], ["x"]], [["s[1:]", "n"], ["x"]], [["s", "n"], ["x"]]],
        ),
    ],
)
def test_pattern_means_its_axes_in_memory_order(pattern, meaning):
    assert shown(pattern) == meaning


WRONG = {
    "": (0, "no axes"),
    "   ": (3, "no axes"),
    "()": (2, "an empty group"),
    "a ( )": (5, "an empty group"),
    "a b) c": (4, "no group is open here"),
    "(a b": (1, "the group that is opened here is never closed"),
    "x (a b": (3, "the group that is opened here is never closed"),
    "(a (b) c)": (4, "a group inside of a group"),
    "a b a": (5, "the axis 'a' is there twice"),
    "(a b) a": (7, "the axis 'a' is there twice"),
    "(a b a)": (6, "the axis 'a' is there twice"),
    "a-b": (2, "'-' means nothing here"),
    "a, b": (2, "',' means nothing here"),
    "a 2": (3, "'2' means nothing here"),
    "a 12": (3, "'1' means nothing here"),
    "a[1][2]": (5, "the part '[2]' does not follow an axis, or has brackets in it"),
    "a [1]": (3, "the part '[1]' does not follow an axis, or has brackets in it"),
    "a[b": (2, "the part '[b' is not closed"),
    "a[b[c]]": (2, "the part '[b[c]]' does not follow an axis, or has brackets in it"),
    "a[]": (2, "an empty part"),
    "a[ ]": (2, "an empty part"),
    "b a[x y]": (4, "'x y' is no sum of sizes"),
    "a[x - 1]": (2, "'x - 1' is no sum of sizes"),
    "a[:x +]": (2, "'x +' is no sum of sizes"),
    "a[2 ** x]": (2, "'2 ** x' is no sum of sizes"),
    "a[0:1:2]": (2, "'1:2' is no sum of sizes"),
    "(a 1) b": (4, "1 is a dimension of its own, not part of a group"),
    "(a | b)": (4, "a run of rows ends in the middle of a group"),
    "( | a)": (3, "a run of rows ends in the middle of a group"),
    "| a": (1, "no rows before it"),
    "a | | b": (5, "no rows before it"),
    "a |": (3, "no rows after it"),
    "a b | c": (1, "its runs of rows have unequal numbers of dimensions"),
}


@pytest.mark.parametrize("pattern", WRONG)
def test_what_is_wrong_with_a_pattern_is_said_with_its_place(pattern):
    place, what = WRONG[pattern]
    with pytest.raises(MscvtError) as caught:
        parse(pattern)
    assert caught.value.message == f"layout {pattern!r}, at character {place}: {what}"
    assert "(group slot[:queries] channel) hidden" in caught.value.hint


@given(st.text("ab ()|[:]1+*_-", max_size=12))
def test_any_text_is_a_pattern_of_distinct_axes_or_an_error(text):
    try:
        segments = parse(text)
    except MscvtError:
        return
    for groups in segments:
        axes = [span.axis for group in groups for span in group]
        assert len(set(axes)) == len(axes)
        assert all(axis.isidentifier() for axis in axes)
        assert all(group or " 1 " in f" {text} ".replace("|", " ") for group in groups)
    assert len({len(groups) for groups in segments}) == 1
    words = "".join(c if c.isalnum() or c in "_|" else " " for c in _without_parts(text)).replace(" 1 ", " ")
    expected = [span.axis for groups in segments for group in groups for span in group]
    assert [word for word in words.replace("|", " ").split() if word != "1"] == expected


def _without_parts(text):
    while "[" in text:
        before, _, after = text.partition("[")
        text = before + after.partition("]")[2]
    return text


def test_axes_of_a_pattern_are_those_of_all_its_rows():
    assert axes_of("(a b[:n]) x | c[2] x") == {"a", "b", "c", "x"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [("7", 7), ("n", 3), ("n + 1", 4), ("2 * n", 6), ("2*n*m+n + 1", 34), ("m", 5), (" n ", 3), ("0 * n", 0)],
)
def test_sums_of_products_are_evaluated(expression, value):
    assert evaluate(expression, {"n": 3, "m": 5}) == value


def test_size_that_is_not_there_is_named():
    with pytest.raises(
        MscvtError, match="needs the size 'more', which the model's configuration doesn't give"
    ) as caught:
        evaluate("2 * n + more", {"n": 3})
    assert "`fields`" in caught.value.hint
    assert "`sizes`" in caught.value.hint


def test_size_of_zero_is_a_size():
    assert evaluate("n + 1", {"n": 0}) == 1


def test_span_without_a_part_is_the_whole_axis():
    assert parse("a[:]") == parse("a") == (((Span("a"),),),)
