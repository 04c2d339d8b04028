"""Factors: merging before a cut gives what merging after it gives, whatever the layout, the cut and the ranks."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import places, shares_of

from mscvt.layout.layout import Run, resolve
from mscvt.layout.low_rank import RANK, factor_layouts
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, PADDING, TENSOR, Rule, Source, whole
from mscvt.tensors.adapted import AdaptedMatrix
from mscvt.tensors.computing import values_of
from mscvt.testing.in_memory import in_memory

SIZES = {"queries": 2, "slot": 4, "half": 2, "state": 2, "nope": 2, "real": 7}
HALVES = (Source("gate", "expert (half[0] ffn) hidden"), Source("up", "expert (half[1] ffn) hidden"))
QKV = "(group slot[:queries] channel) hidden", "(group slot[2] channel) hidden", "(group slot[3] channel) hidden"
EXPERT_CUTS = {"expert": EXPERT, "ffn": EXPERT_TENSOR}
RULES = (
    Rule("qkv", "(group slot channel) hidden", tuple(map(Source, "qkv", QKV)), {"group": TENSOR}),
    Rule("qkv", "(group slot channel) hidden", (Source("packed", " | ".join(QKV)),), {"group": TENSOR}),
    Rule("qkv", "(group slot channel) hidden", tuple(map(Source, "qkv", QKV)), {"group slot channel": TENSOR}),
    whole("proj", "proj", "hidden (group channel)", cuts={"group": TENSOR}),
    whole("down", "down", "ffn hidden"),
    whole("states", "states", "(half ffn) hidden | (state group) hidden", cuts={"ffn": TENSOR, "group": TENSOR}),
    Rule("nope", "(group qk[:nope]) hidden", (Source("q_up", "(group qk[:nope]) hidden"),), {"group": TENSOR}),
    Rule("head", "vocab hidden", (Source("h", "vocab[:real] hidden"), Source(PADDING, "vocab[real:] hidden")), {}),
    Rule("eh", "hidden (half ffn)", (Source("e", "hidden (half[0] ffn)"), Source("h", "hidden (half[1] ffn)")), {}),
    Rule("fc1.{expert}", "expert (half ffn) hidden", HALVES, EXPERT_CUTS),
    Rule("fc2.{expert}", "expert hidden ffn", (Source("down", "expert hidden ffn"),), EXPERT_CUTS),
    Rule("w1", "expert hidden half ffn", HALVES, EXPERT_CUTS, shape="hidden (expert half ffn)"),
    Rule("w2", "(expert ffn) hidden", (Source("down", "expert hidden ffn"),), EXPERT_CUTS),
)
"""Every way in which rules make weights of others."""


SPREAD = ("qkv", "proj", "down")
"""Weights of modules whose factors may be cut wherever their weights are."""


@st.composite
def layouts(draw):
    """A layout, and how many ways each dimension cuts it."""
    rule = draw(st.sampled_from(RULES))
    counts = {dimension: draw(st.sampled_from([1, 2])) for dimension in (TENSOR, EXPERT, EXPERT_TENSOR)}
    sizes = {name: 2 * draw(st.integers(1, 2)) for name in ("group", "ffn", "expert")}
    sizes |= {"hidden": 2 * draw(st.integers(1, 2)), "channel": 3, "qk": 3, "vocab": 8}
    held = [frozenset({"expert"}) if "expert" in source.axes else frozenset() for source in rule.sources]
    return resolve(rule, {**SIZES, **sizes}, held), counts


@st.composite
def ranks(draw, layout):
    """The ranks of the stack's factors, and of each tensor's among them: one A for all, or ranks of their own."""
    rank = draw(st.integers(1, 3))
    is_shared = draw(st.booleans()) and len({side.name for side in layout.right}) > 1
    is_shared = is_shared and not layout.left[0].name.startswith("eh")
    runs, start = [], 0
    for side in layout.right:
        runs.append(None if side.is_padding else Run(RANK, start, rank))
        start += 0 if is_shared or side.is_padding else rank
    return Run(RANK, 0, (rank if is_shared else start) + draw(st.integers(0, 1))), runs


def tensors_of(layout, random):
    """Whole tensors of the right; `walks` marks with -1 what is not filled."""
    found = {}
    for number, side in enumerate(layout.right):
        held = {run.axis: run for run in side.segments[0].held}
        for at in np.ndindex(*(held[axis].extent for axis in side.held)):
            found[number, at] = random.integers(0, 6, side.shape)
    return found


def merged(weight, left, right, rank):
    """A shard with its factors merged by what merges in a conversion."""
    flat = [torch.from_numpy(factor.astype(np.float32)).flatten() for factor in (weight, left, right)]
    batch = flat[1].numel() * flat[2].numel() // (flat[0].numel() * rank**2)
    matrix = AdaptedMatrix(in_memory(flat[0]), flat[1], flat[2], rank, flat[2].numel() // (batch * rank), 2.0)
    return values_of(matrix, 0, (weight.size,), (1,)).numpy().reshape(weight.shape).astype(np.int64)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.data())
def test_merging_before_a_cut_equals_merging_after_it(data):
    layout, counts = data.draw(layouts())
    left, right = data.draw(ranks(layout))
    is_spread = data.draw(st.booleans()) and left.extent % counts[TENSOR] == 0 and layout.left[0].name in SPREAD
    factors = factor_layouts(layout, left, right, is_spread=is_spread)
    random = np.random.default_rng(left.extent)
    weights, a, b = (tensors_of(one, random) for one in (layout, factors.a, factors.b))
    before = {}
    for (number, at), weight in weights.items():
        of_a, of_b = factors.a_of[number], factors.b_of[number]
        change = 0 if of_a is None else 2 * b[of_b, at] @ a[of_a, at]
        before[number, at] = weight + change
    expected = shares_of(layout, counts, before)
    cut = [
        shares_of(one, counts, whole_ones) for one, whole_ones in ((layout, weights), (factors.a, a), (factors.b, b))
    ]
    assert {(place, numbers) for place, numbers in expected} == cut[0].keys()
    for place, numbers in expected:
        mine = dict(zip(layout.dimensions, place, strict=True))
        parts = []
        for share, one in zip(cut[1:], (factors.a, factors.b), strict=True):
            is_cut_apart = is_spread and one.cuts.keys() - layout.cuts.keys()
            ranks_of = range(counts[TENSOR]) if is_cut_apart else [mine.get(TENSOR)]
            places_of = [tuple({**mine, TENSOR: rank}[dimension] for dimension in one.dimensions) for rank in ranks_of]
            parts.append(np.concatenate([share[at, numbers] for at in places_of]))
        product = parts if factors.is_transposed else parts[::-1]
        shard = merged(cut[0][place, numbers], *product, left.extent)
        assert (shard == expected[place, numbers]).all()
    assert {place for place, _ in expected} == set(places(layout, counts))


def test_weights_that_are_no_matrices_have_no_factors():
    ranks_of = Run(RANK, 0, 2)
    sizes = {**SIZES, "group": 2, "channel": 3, "kernel": 4, "hidden": 5, "ffn": 2}
    for axes in ("hidden", "(group channel)", "channel 1 kernel", "group ffn hidden"):
        assert factor_layouts(resolve(whole("key", "role", axes), sizes, [frozenset()]), ranks_of, [ranks_of]) is None
