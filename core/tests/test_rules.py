import pytest

from mscvt.errors import MscvtError
from mscvt.layout.rules import PADDING, Part, Rows, Rule, resolve, whole

SIZES = {"group": 4, "queries": 3, "slot": 5, "channel": 2, "hidden": 7, "expert": 3, "ffn": 6, "vocab": 10, "real": 8}


def vocabulary(real, padding):
    parts = (
        Part("embedding", "vocab hidden", {"vocab": (0, real)}),
        Part(PADDING, "vocab hidden", {"vocab": (real, padding)}),
    )
    return Rule("embedding.weight", "vocab hidden", parts, {"vocab": "tensor"})


def test_whole_is_one_tensor_cut_along_the_named_axis():
    rule = whole("proj.weight", "attention.proj", "hidden (group channel)", cuts={"group": "tensor"})
    resolved = resolve(rule, SIZES)
    assert resolved.sources == (("attention.proj", None),)
    assert resolved.layout.shape({"tensor": 2}) == (7, 4)
    assert resolved.layout.part_shape(0) == (7, 8)
    assert not rule.keeps_dtype
    assert whole("bias", "router", "expert", keeps_dtype=True).keeps_dtype


def test_sizes_may_be_numbers_names_and_sums():
    rule = Rule(
        "qkv.weight",
        "(group slot channel) hidden",
        (
            Part("q", "(group slot channel) hidden", {"slot": (0, "queries")}),
            Part("k", "(group channel) hidden", {"slot": ("queries", 1)}),
            Part("v", "(group channel) hidden", {"slot": ("queries + 1", "1")}),
        ),
    )
    layout = resolve(rule, SIZES).layout
    assert [dict(part.at) for part in layout.parts] == [{"slot": (0, 3)}, {"slot": (3, 1)}, {"slot": (4, 1)}]
    assert [layout.part_shape(part) for part in range(3)] == [(24, 7), (8, 7), (8, 7)]
    assert rule.roles == {"q", "k", "v"}


def test_each_makes_a_part_for_every_index():
    rule = Rule("weight2", "(expert ffn) hidden", (Part("down", "hidden ffn", each="expert"),), {"expert": "expert"})
    resolved = resolve(rule, SIZES)
    assert resolved.sources == (("down", 0), ("down", 1), ("down", 2))
    assert [part.at["expert"] for part in resolved.layout.parts] == [(0, 1), (1, 1), (2, 1)]
    assert resolved.layout.part_shape(2) == (7, 6)
    assert resolved.layout.shape({"expert": 3}) == (6, 7)


def test_shape_may_hide_the_memory_order():
    rule = Rule("weight1", "expert hidden ffn", (Part("up", "ffn hidden", each="expert"),), shape="hidden (expert ffn)")
    assert resolve(rule, SIZES).layout.shape({}) == (7, 18)


def test_rows_are_stacked_and_their_parts_numbered_on():
    rule = Rule(
        "qkv.weight",
        rows=(
            Rows("ffn hidden", (Part("q", "ffn hidden"),)),
            Rows("group hidden", (Part("kv", "group hidden"),)),
        ),
    )
    resolved = resolve(rule, SIZES)
    assert rule.roles == {"q", "kv"}
    assert resolved.layout.shape({}) == (10, 7)
    assert [segment.parts for segment in resolved.layout.segments] == [(0,), (1,)]
    assert [piece.megatron.base for piece in resolved.layout.pieces({}, {})] == [0, 6 * 7]


def test_within_is_resolved_like_at():
    part = Part("up", "(group channel) hidden", within={"channel": ("queries", "slot")})
    resolved = resolve(Rule("v.weight", "(group channel) hidden", (part,)), SIZES)
    assert dict(resolved.layout.parts[0].within) == {"channel": (3, 5)}
    assert resolved.layout.part_shape(0) == (20, 7)


def test_padding_without_rows_is_no_part():
    assert resolve(vocabulary("vocab", 0), SIZES).sources == (("embedding", None),)


def test_padding_with_rows_is_a_part_without_a_role():
    rule = vocabulary("real", 2)
    resolved = resolve(rule, SIZES)
    assert rule.roles == {"embedding"}
    assert resolved.sources == (("embedding", None), (PADDING, None))
    assert [part.is_padding for part in resolved.layout.parts] == [False, True]
    pieces = resolved.layout.pieces({"tensor": 5}, {"tensor": 4})
    assert [(piece.part, piece.huggingface) for piece in pieces] == [(1, None)]


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (whole("a.weight", "a", "rows hidden"), "rows"),
        (Rule("a.weight", "slot", (Part("a", "slot", {"slot": (0, "queries + more")}),)), "more"),
        (Rule("a.weight", "slot", (Part("a", "slot", within={"slot": ("before", 9)}),)), "before"),
        (Rule("a.weight", "heads slot", (Part("a", "slot", each="heads"),)), "heads"),
    ],
)
def test_size_that_the_model_lacks_is_named_with_the_rule(rule, size):
    with pytest.raises(MscvtError) as caught:
        resolve(rule, SIZES)
    assert f"rule 'a.weight' needs the size '{size}'" in str(caught.value)


def test_pattern_that_is_none_is_an_error():
    with pytest.raises(MscvtError, match="layout pattern"):
        resolve(whole("a.weight", "a", "(slot hidden"), SIZES)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (whole("a.weight", "a", "group hidden", cuts={"groups": "tensor"}), "cuts groups, which it does not have"),
        (whole("a.weight", "a", "group hidden", cuts={"group": "tp"}), "cuts by tp, expected expert, expert_tensor"),
        (Rule("a.weight", "slot", (Part("a", "slot", {"queries": (0, 1)}),)), "part a speaks of queries"),
        (Rule("a.weight", "slot hidden", (Part("a", "hidden"),)), "part a takes more than one index of slot"),
        (Rule("a.weight", "slot hidden", (Part("a", "slot hidden"),), shape="slot"), "shape 'slot' does not have"),
    ],
)
def test_rule_that_speaks_of_axes_it_does_not_have_is_refused(rule, message):
    with pytest.raises(MscvtError) as caught:
        resolve(rule, SIZES)
    assert message in str(caught.value)
    assert "'a.weight' is not well formed" in str(caught.value)
