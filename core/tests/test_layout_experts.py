"""Experts of every shape: one by one, grouped or with the index in the key, from tensors alone or fused."""

import pytest
import torch
from walks import merged, numbered, places, shares_of

from mscvt.layout.layout import resolve
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, Rule, Source, whole

EXPERTS, FFN, HIDDEN = 8, 6, 5
SIZES = {"expert": EXPERTS, "ffn": FFN, "hidden": HIDDEN, "half": 2}
CUTS = {"expert": EXPERT, "ffn": EXPERT_TENSOR}
COUNTS = [{EXPERT: ep, EXPERT_TENSOR: etp} for ep, etp in ((1, 1), (2, 1), (1, 3), (4, 2), (8, 6))]

GATE, UP, DOWN = map(torch.from_numpy, numbered((EXPERTS, FFN, HIDDEN), (EXPERTS, FFN, HIDDEN), (EXPERTS, HIDDEN, FFN)))
"""[expert, ffn, hidden], the same, [expert, hidden, ffn]."""

SPLIT = (Source("gate", "expert (half[0] ffn) hidden"), Source("up", "expert (half[1] ffn) hidden"))
SOURCES = {
    "one by one": (SPLIT, "expert", [GATE, UP]),
    "each half fused": (SPLIT, "", [GATE, UP]),
    "gate and up fused": ((Source("both", "expert (half ffn) hidden"),), "", [torch.cat([GATE, UP], 1)]),
    "fused and transposed": (
        (Source("both", "expert hidden (half ffn)"),),
        "",
        [torch.cat([GATE, UP], 1).transpose(1, 2)],
    ),
    "fused and interleaved": (
        (Source("both", "expert hidden (ffn half)"),),
        "",
        [torch.stack([GATE, UP], -1).permute(0, 2, 1, 3).reshape(EXPERTS, HIDDEN, 2 * FFN)],
    ),
    "fused in one name for each expert": (
        (Source("both", "expert (half ffn) hidden"),),
        "expert",
        [torch.cat([GATE, UP], 1)],
    ),
}
"""How Hugging Face may keep gate and up -> sources, the axes that their names hold, tensors with the expert first."""

KEYS = {"sequential": "local_experts.{expert}.linear_fc1.weight", "in the key": "linear_fc1.weight{expert}"}


def right_of(tensors, held):
    """Whole tensors as a checkpoint has them: one for each expert where the name holds the expert."""
    if not held:
        return {(number, ()): tensor.contiguous().numpy() for number, tensor in enumerate(tensors)}
    return {(n, (e,)): t[e].contiguous().numpy() for n, t in enumerate(tensors) for e in range(EXPERTS)}


def rank_of(counts, ep, etp):
    """The experts of a rank, and the rows of each that it holds."""
    local, rows = EXPERTS // counts[EXPERT], FFN // counts[EXPERT_TENSOR]
    return slice(ep * local, (ep + 1) * local), slice(etp * rows, (etp + 1) * rows)


def check(rule, held, tensors, counts, expected):
    """Shares are `expected(ep, etp)`, a dict by numbers in the key, and shares give the whole tensors back."""
    layout = resolve(rule, SIZES, [frozenset(held.split())] * len(rule.sources))
    right = right_of(tensors, held)
    assert {number: side.shape for number, side in enumerate(layout.right)} == {
        number: tensor.shape for (number, _), tensor in right.items()
    }
    found = shares_of(layout, counts, right)
    assert layout.dimensions == (EXPERT, EXPERT_TENSOR)
    wanted = {(at, n): t for at in places(layout, counts) for n, t in expected(*at).items()}
    assert found.keys() == wanted.keys()
    for at, tensor in wanted.items():
        assert torch.equal(torch.from_numpy(found[at]), tensor), at
    merged(layout, counts, found, right)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("source", SOURCES)
def test_experts_become_one_tensor_each_numbered_inside_their_rank(source, key, counts):
    sources, held, tensors = SOURCES[source]

    def expected(ep, etp):
        experts, rows = rank_of(counts, ep, etp)
        both = torch.cat([GATE[experts, rows], UP[experts, rows]], 1)
        return {(number,): tensor for number, tensor in enumerate(both)}

    check(Rule(KEYS[key], "expert (half ffn) hidden", sources, CUTS), held, tensors, counts, expected)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_experts_become_one_tensor_for_a_rank_where_grouped(source, counts):
    sources, held, tensors = SOURCES[source]
    rule = Rule("weight1", "expert hidden half ffn", sources, CUTS, shape="hidden (expert half ffn)")

    def expected(ep, etp):
        experts, rows = rank_of(counts, ep, etp)
        both = torch.cat([GATE[experts, rows], UP[experts, rows]], 1)  # [experts, 2 * rows, hidden]
        flat = both.transpose(1, 2).contiguous()
        return {(): flat.reshape(HIDDEN, -1)}

    check(rule, held, tensors, counts, expected)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize(
    ("axes", "held", "tensor"),
    [
        ("expert hidden ffn", "expert", DOWN),
        ("expert hidden ffn", "", DOWN),
        ("expert ffn hidden", "", DOWN.transpose(1, 2)),
    ],
    ids=["one by one", "fused", "fused and transposed"],
)
@pytest.mark.parametrize("key", ["weight2", "local_experts.{expert}.linear_fc2.weight", "linear_fc2.weight{expert}"])
def test_down_projections_are_cut_by_columns(key, axes, held, tensor, counts):
    if key == "weight2":
        rule = Rule(key, "(expert ffn) hidden", (Source("down", axes),), CUTS)
    else:
        rule = Rule(key, "expert hidden ffn", (Source("down", axes),), CUTS)

    def expected(ep, etp):
        experts, columns = rank_of(counts, ep, etp)
        mine = DOWN[experts, :, columns]
        if key == "weight2":
            return {(): mine.transpose(1, 2).reshape(-1, HIDDEN)}
        return {(number,): one for number, one in enumerate(mine)}

    check(rule, held, [tensor], counts, expected)


def test_whole_experts_go_round_all_ranks_where_nothing_cuts_them():
    rule = whole("w{expert}", "down", "expert hidden ffn", cuts={"expert": EXPERT})
    layout = resolve(rule, SIZES, [frozenset()])
    found = shares_of(layout, {EXPERT: 4}, {(0, ()): DOWN.numpy()})
    assert [at for at in found if at[0] == (3,)] == [((3,), (0,)), ((3,), (1,))]
    assert (found[(3,), (1,)] == DOWN[7].numpy()).all()


def test_biases_of_experts_follow_their_rows():
    gate, up = map(torch.from_numpy, numbered((EXPERTS, FFN), (EXPERTS, FFN)))
    rule = Rule(
        "b{expert}",
        "expert (half ffn)",
        (Source("gate", "expert (half[0] ffn)"), Source("up", "expert (half[1] ffn)")),
        CUTS,
    )
    counts = {EXPERT: 2, EXPERT_TENSOR: 3}

    def expected(ep, etp):
        experts, rows = rank_of(counts, ep, etp)
        return {
            (n,): torch.cat(both) for n, both in enumerate(zip(gate[experts, rows], up[experts, rows], strict=True))
        }

    check(rule, "", [gate, up], counts, expected)
