"""Rules: what sizes make of them, and which ones contradict themselves."""

import pytest

from mscvt.errors import MscvtError
from mscvt.layout.layout import Run, resolve
from mscvt.layout.rules import PADDING, Rule, Source, check_rule, fields_in, whole

SIZES = {"group": 4, "queries": 3, "slot": 5, "channel": 2, "hidden": 7, "expert": 3, "ffn": 6, "vocab": 10, "real": 8}
NONE = frozenset()


def made(rule, *held, sizes=SIZES):
    return resolve(rule, sizes, [frozenset(axes.split()) for axes in held] or [NONE] * len(rule.sources))


def test_whole_is_one_tensor_cut_along_the_named_axis():
    rule = whole("proj.weight", "attention.proj", "hidden (group channel)", cuts={"group": "tensor"})
    layout = made(rule)
    assert [side.name for side in layout.right] == ["attention.proj"]
    assert layout.left[0].shape == layout.right[0].shape == (7, 8)
    assert [share.shape for share in layout.shares({"tensor": 2}, [(0,), (1,)])] == [(7, 4), (7, 4)]
    assert not rule.keeps_dtype
    assert whole("bias", "router", "expert", keeps_dtype=True).keeps_dtype


def test_parts_may_be_numbers_names_sums_and_products():
    rule = Rule(
        "qkv.weight",
        "(group slot channel) hidden",
        (
            Source("q", "(group slot[:queries] channel) hidden"),
            Source("k", "(group slot[queries] channel) hidden"),
            Source("v", "(group slot[2 * channel:queries * channel] channel) hidden"),
        ),
    )
    layout = made(rule, sizes={**SIZES, "slot": 6})
    runs = [next(run for run in side.segments[0].runs if run.axis == "slot") for side in layout.right]
    assert runs == [Run("slot", 0, 3), Run("slot", 3, 1), Run("slot", 4, 2)]
    assert [side.shape for side in layout.right] == [(24, 7), (8, 7), (16, 7)]
    assert rule.roles == {"q", "k", "v"}


def test_axis_that_a_name_holds_is_not_in_its_tensor():
    rule = Rule("weight2", "(expert ffn) hidden", (Source("down", "expert hidden ffn"),), {"expert": "expert"})
    (alone,), (fused,) = made(rule, "expert").right, made(rule, "").right
    assert (alone.shape, alone.held) == ((7, 6), ("expert",))
    assert (fused.shape, fused.held) == ((3, 7, 6), ())
    keyed = made(Rule("w{expert}", "expert hidden ffn", rule.sources))
    assert (keyed.left[0].shape, keyed.left[0].held) == ((7, 6), ("expert",))
    assert [share.numbers for share in keyed.shares({}, [()])] == [(0,), (1,), (2,)]


def test_axis_in_a_group_that_a_name_holds_leaves_the_group():
    rule = Rule("w", "(expert ffn) hidden", (Source("up", "(expert ffn) hidden"),))
    assert made(rule, "expert").right[0].shape == (6, 7)
    assert made(rule, "expert ffn").right[0].shape == (7,)


def test_dimension_of_size_one_is_kept():
    assert made(whole("conv", "conv", "ffn 1 channel")).left[0].shape == (6, 1, 2)


def test_shape_may_hide_the_memory_order():
    rule = Rule("weight1", "expert hidden ffn", (Source("up", "expert ffn hidden"),), shape="hidden (expert ffn)")
    layout = made(rule, "expert")
    assert layout.left[0].shape == (7, 18)
    (share,) = layout.shares({}, [()])
    assert share.shape == (7, 18)


def test_rows_are_stacked():
    rule = Rule("qkv.weight", "ffn hidden | group hidden", (Source("q", "ffn hidden"), Source("kv", "group hidden")))
    layout = made(rule)
    assert rule.roles == {"q", "kv"}
    assert layout.left[0].shape == (10, 7)
    (share,) = layout.shares({}, [()])
    assert [(piece.source, piece.pair.left, piece.pair.numel) for piece in share.pieces] == [(0, 0, 42), (1, 42, 28)]


def vocabulary(real):
    sources = (Source("embedding", f"vocab[:{real}] hidden"), Source(PADDING, f"vocab[{real}:] hidden"))
    return Rule("embedding.weight", "vocab hidden", sources, {"vocab": "tensor"})


def test_padding_without_rows_is_no_source():
    assert [side.name for side in made(vocabulary("vocab")).right] == ["embedding"]


def test_padding_with_rows_has_no_role():
    layout = made(vocabulary("real"))
    assert vocabulary("real").roles == {"embedding"}
    assert [(side.name, side.is_padding, side.shape) for side in layout.right] == [
        ("embedding", False, (8, 7)),
        (PADDING, True, (2, 7)),
    ]
    last = list(layout.shares({"tensor": 5}, [(4,)]))
    assert [piece.source for share in last for piece in share.pieces] == [1]


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (whole("a.weight", "a", "rows hidden"), "rows"),
        (Rule("a.weight", "slot", (Source("a", "slot[:queries + more]"),)), "more"),
        (Rule("a.weight", "slot[:after]", (Source("a", "slot"),)), "after"),
        (Rule("a.weight", "slot", (Source("a", "slot"), Source(PADDING, "slot[before:]"))), "before"),
    ],
)
def test_size_that_the_model_lacks_is_named_with_the_rule(rule, size):
    with pytest.raises(MscvtError) as caught:
        made(rule)
    assert caught.value.message == (
        f"rule 'a.weight' needs the size {size!r}, which the model's configuration doesn't give"
    )
    assert "`sizes`" in caught.value.hint


@pytest.mark.parametrize(("part", "shown"), [("[3:7]", "[3:7]"), ("[4:2]", "[4:2]"), ("[slot]", "[5:6]")])
def test_part_beyond_its_axis_is_named_with_the_rule(part, shown):
    with pytest.raises(MscvtError) as caught:
        made(Rule("a.weight", "slot", (Source("a", f"slot{part}"),)))
    assert caught.value.message == f"rule 'a.weight' takes slot{shown} in 'slot{part}', and slot has the size 5"


def one(axes, *sources, **more):
    sources = [Source(*source.split(": ")) for source in sources]
    return Rule(more.pop("key", "a.weight"), axes, tuple(sources), **more)


MALFORMED = [
    ("its key has a stray brace", one("a b", "r: a b", key="a.{b")),
    ("its key holds expert, layer, which 'a b' does not have", one("a b", "r: a b", key="{layer}.{expert}")),
    ("nothing lies in it", one("a b")),
    ("r speaks of c, d, which 'a b' does not have", one("a b", "r: a b c d")),
    (
        "r in 'a' does not have b of 'a b'; where it holds one index of an axis, say which, such as b[0]",
        one("a b", "r: a"),
    ),
    ("r in 'a b x' has axes of more than one run of rows of 'a x | b x'", one("a x | b x", "r: a b x")),
    ("shape 'a' does not have the axes of 'a b'", one("a b", "r: a b", shape="a")),
    ("shape 'a b' does not have the axes of 'a b'", one("a b", "r: a b", shape="a b", key="{b}")),
    ("shape '(a b) x' is for one run of rows, not for 'a x | b x'", one("a x | b x", "r: a x | b x", shape="(a b) x")),
    ("cuts c, which it does not have", one("a b", "r: a b", cuts={"c": "tensor"})),
    ("cuts d, which it does not have", one("(a b) c", "r: (a b) c", cuts={"a d": "tensor"})),
    ("cuts by pp, expected expert, expert_tensor, tensor", one("a b", "r: a b", cuts={"a": "pp"})),
    ("cuts 'b a' as rows, and its rows are 'a b'", one("(a b) c", "r: (a b) c", cuts={"b a": "tensor"})),
    ("cuts 'a c' as rows, and its rows are 'a b'", one("(a b) c", "r: (a b) c", cuts={"a c": "tensor"})),
    ("cuts 'e a' as rows, and its rows are 'a'", one("(e a) c", "r: (e a) c", cuts={"e a": "tensor"}, key="{e}")),
    (
        "cuts 'a c' as rows, and its rows are 'a b' or 'c'",
        one("(a b) x | c x", "r: (a b) x", "s: c x", cuts={"a c": "tensor"}),
    ),
    (
        "cuts a and b of the same rows by tensor; some would be on no rank",
        one("a b", "r: a b", cuts={"b": "tensor", "a": "tensor"}),
    ),
    (
        "cuts 'a b' as rows, and its rows are not in one piece",
        one("(a b) c", "r: (a b) c", cuts={"a b": "tensor"}, shape="c (a b)"),
    ),
]


@pytest.mark.parametrize(("message", "rule"), MALFORMED, ids=[message for message, _ in MALFORMED])
def test_rule_that_contradicts_itself_is_refused(message, rule):
    with pytest.raises(MscvtError) as caught:
        check_rule(rule)
    text = str(caught.value)
    assert text.startswith(f"rule {rule.key!r} is not well formed: ")
    assert message in text


@pytest.mark.parametrize(
    "rule",
    [
        one("(a b) c", "r: (a b) c", cuts={"a  b": "tensor"}),
        one("e (a b) c", "r: e (a b) c", cuts={"a b": "tensor", "e": "expert"}, key="w{e}"),
        one("a x | b x", "r: a x | b x", cuts={"a": "tensor", "b": "tensor"}),
    ],
    ids=str,
)
def test_rule_whose_cuts_are_rows_or_axes_is_well_formed(rule):
    assert check_rule(rule) is None


def test_all_that_is_wrong_with_a_rule_is_said_at_once():
    rule = one("a b", "r: a", "s: a c", cuts={"d": "tp"}, key="{e}", shape="b")
    with pytest.raises(MscvtError) as caught:
        check_rule(rule)
    assert len(caught.value.faults) == 6
    assert caught.value.message == "rule '{e}' is not well formed: 6 faults"


def test_rule_is_checked_before_it_gets_sizes():
    with pytest.raises(MscvtError, match="cuts c, which it does not have"):
        made(one("group", "r: group", cuts={"c": "tensor"}))


@pytest.mark.parametrize("rule", [one("(a", "r: a"), one("a", "r: (a"), one("a", "r: a", shape="(a")], ids=str)
def test_pattern_that_is_none_is_an_error(rule):
    with pytest.raises(
        MscvtError, match=r"layout '\(a', at character 1: the group that is opened here is never closed"
    ):
        check_rule(rule)


def test_runs_of_rows_of_unequal_width_are_refused():
    with pytest.raises(MscvtError) as caught:
        made(Rule("a.weight", "ffn hidden | group channel", (Source("r", "ffn hidden"), Source("s", "group channel"))))
    assert caught.value.message == (
        "rule 'a.weight' stacks rows of unequal widths in 'ffn hidden | group channel': [2], [7]"
    )


@pytest.mark.parametrize(
    ("name", "fields"),
    [("a.weight", []), ("layers.{layer}.{expert}.w{expert}", ["expert", "layer"]), ("{{a}}.{b}", ["b"])],
)
def test_fields_of_a_name(name, fields):
    assert sorted(fields_in(name)) == fields


@pytest.mark.parametrize("name", ["a.{b", "a}.b"])
def test_stray_brace_in_a_name_is_an_error(name):
    with pytest.raises(ValueError, match=r"brace|'}'|'{'"):
        fields_in(name)
