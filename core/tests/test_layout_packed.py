"""Tensors that hold several others: packed projections, plain rows cut through groups, an axis of layers."""

import pytest
import torch
from walks import merged, numbered, places, shares_of

from mscvt.layout.layout import resolve
from mscvt.layout.rules import PADDING, TENSOR, Rule, Source, whole

GROUPS, QUERIES, CHANNEL, HIDDEN = 4, 3, 2, 5
HEADS = GROUPS * QUERIES
SIZES = {"group": GROUPS, "queries": QUERIES, "slot": QUERIES + 2, "channel": CHANNEL, "hidden": HIDDEN}
QKV_ROWS = (HEADS * CHANNEL, GROUPS * CHANNEL, GROUPS * CHANNEL)


def tensors_of(*shapes):
    return [torch.from_numpy(tensor) for tensor in numbered(*shapes)]


def by_group(q, k, v):
    """[group, its queries then its key then its value, channel, ...]: how Megatron has them."""
    tail = q.shape[1:]
    parts = [t.reshape(GROUPS, -1, CHANNEL, *tail) for t in (q, k, v)]
    return torch.cat(parts, 1)


def shares(rule, sizes, tensors, tp, held=None):
    layout = resolve(rule, sizes, held or [frozenset()] * len(rule.sources))
    right = {(number, ()): tensor.numpy() for number, tensor in enumerate(tensors)}
    found = shares_of(layout, {TENSOR: tp}, right)
    merged(layout, {TENSOR: tp}, found, right)
    return [torch.from_numpy(found[at, ()]) for at in places(layout, {TENSOR: tp})]


def equal(found, expected):
    expected = list(expected)
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


PACKED = "(group slot[:queries] channel){0} | (group slot[queries] channel){0} | (group slot[queries + 1] channel){0}"


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize(("axis", "tail"), [(" hidden", (HIDDEN,)), ("", ())], ids=["weight", "bias"])
def test_packed_qkv_becomes_groups(axis, tail, tp):
    (packed,) = tensors_of((sum(QKV_ROWS), *tail))
    rule = Rule("linear_qkv", f"(group slot channel){axis}", (Source("qkv", PACKED.format(axis)),), {"group": TENSOR})
    whole_one = by_group(*packed.split(QKV_ROWS))
    expected = (share.reshape(-1, *tail) for share in whole_one.chunk(tp))
    equal(shares(rule, SIZES, [packed], tp), expected)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_groups_may_also_become_packed_qkv_cut_by_heads(tp):
    (grouped,) = tensors_of((sum(QKV_ROWS), HIDDEN))
    source = Source("qkv", "(group slot channel) hidden")
    rule = Rule("linear_qkv", PACKED.format(" hidden"), (source,), {"group": TENSOR})
    by = grouped.view(GROUPS, QUERIES + 2, CHANNEL, HIDDEN)
    q, k, v = (by[:, part].reshape(-1, HIDDEN) for part in (slice(0, QUERIES), QUERIES, QUERIES + 1))
    expected = (torch.cat(parts) for parts in zip(q.chunk(tp), k.chunk(tp), v.chunk(tp), strict=True))
    equal(shares(rule, SIZES, [grouped], tp), expected)


@pytest.mark.parametrize("tp", [1, 2, 3])
@pytest.mark.parametrize("order", ["(half ffn)", "(ffn half)"], ids=["stacked", "interleaved"])
def test_packed_gate_and_up_are_cut_each(order, tp):
    ffn = 6
    gate, up = tensors_of((ffn, HIDDEN), (ffn, HIDDEN))
    stacked = order == "(half ffn)"
    packed = torch.cat([gate, up]) if stacked else torch.stack([gate, up], 1).reshape(-1, HIDDEN)
    rule = Rule("linear_fc1", "(half ffn) hidden", (Source("both", f"{order} hidden"),), {"ffn": TENSOR})
    expected = (torch.cat(parts) for parts in zip(gate.chunk(tp), up.chunk(tp), strict=True))
    equal(shares(rule, {"half": 2, "ffn": ffn, "hidden": HIDDEN}, [packed], tp), expected)


SPLIT_QKV = (
    Source("q", "(group slot[:queries] channel) hidden"),
    Source("k", "(group slot[queries] channel) hidden"),
    Source("v", "(group slot[queries + 1] channel) hidden"),
)


@pytest.mark.parametrize("tp", [1, 2, 4, 5, 8, 10, 20, 40])
def test_rows_are_cut_through_groups_where_ranks_are_more_than_groups(tp):
    q, k, v = tensors_of(*((rows, HIDDEN) for rows in QKV_ROWS))
    rule = Rule("linear_qkv", "(group slot channel) hidden", SPLIT_QKV, {"group slot channel": TENSOR})
    rows = by_group(q, k, v).reshape(-1, HIDDEN)
    equal(shares(rule, SIZES, [q, k, v], tp), rows.split(len(rows) // tp))


@pytest.mark.parametrize("tp", [1, 2, 3, 6])
def test_rows_are_cut_through_stacked_runs_and_padding(tp):
    a, b = tensors_of((7, HIDDEN), (9, HIDDEN))
    rule = Rule(
        "w",
        "(x y) hidden | z hidden",
        (Source("a", "(x y[:2]) hidden"), Source(PADDING, "(x y[2:]) hidden"), Source("b", "z hidden")),
        {"x y": TENSOR},
    )
    a = a[:6]
    stacked = torch.cat([a.view(3, 2, HIDDEN), torch.zeros(3, 1, HIDDEN, dtype=a.dtype)], 1).reshape(-1, HIDDEN)
    rows = torch.cat([stacked, b])  # 18 rows
    layout = resolve(rule, {"x": 3, "y": 3, "z": 9, "hidden": HIDDEN}, [frozenset()] * 3)
    right = {(0, ()): a.numpy(), (2, ()): b.numpy()}
    found = shares_of(layout, {TENSOR: tp}, right)
    merged(layout, {TENSOR: tp}, found, right)
    equal([torch.from_numpy(found[(rank,), ()]) for rank in range(tp)], rows.split(18 // tp))
    assert list(layout.uneven({TENSOR: tp})) == []
    assert list(layout.uneven({TENSOR: 4})) == [("x y", 18, TENSOR, 4)]


LAYERS = 3


def test_layers_stacked_in_one_tensor_come_from_one_each():
    layers = tensors_of(*[(6, HIDDEN)] * LAYERS)
    rule = whole("decoder.layers.weight", "up", "layer ffn hidden", cuts={"ffn": TENSOR})
    layout = resolve(rule, {"layer": LAYERS, "ffn": 6, "hidden": HIDDEN}, [frozenset({"layer"})])
    right = {(0, (number,)): tensor.numpy() for number, tensor in enumerate(layers)}
    found = shares_of(layout, {TENSOR: 2}, right)
    merged(layout, {TENSOR: 2}, found, right)
    stacked = torch.stack(layers)
    equal([torch.from_numpy(found[(rank,), ()]) for rank in range(2)], stacked.chunk(2, 1))


def test_layers_of_one_tensor_become_one_each():
    (stacked,) = tensors_of((LAYERS, 6, HIDDEN))
    rule = whole("layers.{layer}.weight", "up", "layer ffn hidden", cuts={"ffn": TENSOR})
    layout = resolve(rule, {"layer": LAYERS, "ffn": 6, "hidden": HIDDEN}, [frozenset()])
    found = shares_of(layout, {TENSOR: 2}, {(0, ()): stacked.numpy()})
    merged(layout, {TENSOR: 2}, found, {(0, ()): stacked.numpy()})
    assert list(found) == [((rank,), (layer,)) for rank in range(2) for layer in range(LAYERS)]
    for ((rank,), (layer,)), share in found.items():
        assert torch.equal(torch.from_numpy(share), stacked[layer].chunk(2)[rank])


def test_name_and_key_may_hold_several_axes():
    tensors = tensors_of(*[(6, HIDDEN)] * (LAYERS * 4))
    rule = whole("{expert}.of.{layer}", "up", "layer expert ffn hidden", cuts={"expert": "expert"})
    sizes = {"layer": LAYERS, "expert": 4, "ffn": 6, "hidden": HIDDEN}
    layout = resolve(rule, sizes, [frozenset({"layer", "expert"})])
    assert (layout.left[0].held, layout.right[0].held) == (("layer", "expert"),) * 2
    right = {(0, (n // 4, n % 4)): tensor.numpy() for n, tensor in enumerate(tensors)}
    found = shares_of(layout, {"expert": 2}, right)
    assert len(found) == len(tensors)
    for ((rank,), (layer, expert)), share in found.items():
        assert torch.equal(torch.from_numpy(share), tensors[4 * layer + 2 * rank + expert])


def test_one_matrix_may_be_divided_into_several_tensors_and_put_together_again():
    nope, rope, rank = 4, 2, 5
    (up,) = tensors_of((HEADS * (nope + rope), rank))
    sizes = {"head": HEADS, "qk": nope + rope, "nope": nope, "rank": rank}
    by_head = up.view(HEADS, nope + rope, rank)
    for part, expected in (("[:nope]", by_head[:, :nope]), ("[nope:]", by_head[:, nope:])):
        rule = Rule("part", f"(head qk{part}) rank", (Source("up", "(head qk) rank"),), {"head": TENSOR})
        layout = resolve(rule, sizes, [frozenset()])
        found = shares_of(layout, {TENSOR: 3}, {(0, ()): up.numpy()})
        equal([torch.from_numpy(found[(r,), ()]) for r in range(3)], [e.reshape(-1, rank) for e in expected.chunk(3)])
