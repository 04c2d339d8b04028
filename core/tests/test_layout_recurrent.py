"""Mamba's and Gated DeltaNet's stacked projections: each piece is cut by itself; plain torch code says how."""

import pytest
import torch
from walks import merged, numbered, shares_of

from mscvt.layout.layout import resolve
from mscvt.layout.rules import TENSOR, Rule, Source, whole

TP = (1, 2, 4)


def check(rule, sizes, tensors, tp, expected):
    """Each rank's share is what `expected(rank)` says; shares give the whole tensors back."""
    layout = resolve(rule, sizes, [frozenset()] * len(rule.sources))
    right = {(number, ()): tensor.numpy() for number, tensor in enumerate(tensors)}
    assert [side.shape for side in layout.right] == [tuple(tensor.shape) for tensor in tensors]
    found = shares_of(layout, {TENSOR: tp}, right)
    assert len(found) == tp
    for ((rank,), numbers), share in found.items():
        assert numbers == ()
        assert torch.equal(torch.from_numpy(share), expected(rank)), rank
    merged(layout, {TENSOR: tp}, found, right)


def cut(tensor, tp, rank, dim=0):
    return tensor.chunk(tp, dim)[rank]


HEADS, DIM, GROUPS, STATE, HIDDEN, KERNEL = 8, 3, 4, 5, 7, 4
MAMBA = {"head": HEADS, "dim": DIM, "group": GROUPS, "n": STATE, "hidden": HIDDEN, "kernel": KERNEL, "zx": 2, "bc": 2}
Z = X = HEADS * DIM
B = C = GROUPS * STATE


@pytest.mark.parametrize("tp", TP)
def test_mamba_in_projection_is_cut_piece_by_piece(tp):
    (weight,) = map(torch.from_numpy, numbered((Z + X + B + C + HEADS, HIDDEN)))
    axes = (
        "(zx[0] head dim) hidden | (zx[1] head dim) hidden | "
        "(bc[0] group n) hidden | (bc[1] group n) hidden | head hidden"
    )
    rule = whole("mixer.in_proj.weight", "in", axes, cuts={"head": TENSOR, "group": TENSOR})

    def expected(rank):
        return torch.cat([cut(piece, tp, rank) for piece in weight.split([Z, X, B, C, HEADS])])

    check(rule, MAMBA, [weight], tp, expected)


@pytest.mark.parametrize("tp", TP)
def test_mamba_convolution_is_cut_piece_by_piece_and_keeps_its_dimension_of_one(tp):
    weight, bias = map(torch.from_numpy, numbered((X + B + C, 1, KERNEL), (X + B + C,)))
    rows = ("(head dim)", "(bc[0] group n)", "(bc[1] group n)")
    cuts = {"head": TENSOR, "group": TENSOR}
    for tensor, tail in ((weight, " 1 kernel"), (bias, "")):
        rule = whole("mixer.conv1d", "conv", " | ".join(row + tail for row in rows), cuts=cuts)

        def expected(rank, tensor=tensor):
            return torch.cat([cut(piece, tp, rank) for piece in tensor.split([X, B, C])])

        check(rule, MAMBA, [tensor], tp, expected)


@pytest.mark.parametrize("tp", TP)
def test_segments_of_one_tensor_may_come_from_several_and_leave_as_several(tp):
    z, xbc, dt = map(torch.from_numpy, numbered((Z, HIDDEN), (X + B + C, HIDDEN), (HEADS, HIDDEN)))
    rule = Rule(
        "mixer.in_proj.weight",
        "(zx[0] head dim) hidden | (zx[1] head dim) hidden | (bc group n) hidden | head hidden",
        (
            Source("z", "(zx[0] head dim) hidden"),
            Source("xbc", "(zx[1] head dim) hidden | (bc group n) hidden"),
            Source("dt", "head hidden"),
        ),
        {"head": TENSOR, "group": TENSOR},
    )
    x, bc = xbc.split([X, B + C])

    def expected(rank):
        # B and C are one run with `bc` outermost: each rank has its groups of B, then of C
        b_c = [cut(piece, tp, rank) for piece in bc.split([B, C])]
        return torch.cat([cut(z, tp, rank), cut(x, tp, rank), *b_c, cut(dt, tp, rank)])

    check(rule, MAMBA, [z, xbc, dt], tp, expected)


KEY_HEADS, KD, REPEAT, VD = 4, 3, 2, 5
DELTA = {"kh": KEY_HEADS, "kd": KD, "r": REPEAT, "vd": VD, "hidden": HIDDEN}
VALUE_HEADS = KEY_HEADS * REPEAT


def gdn_sources():
    """Hugging Face's two interleaved projections, and their pieces by head, as its own code takes them apart."""
    qkvz, ba = map(
        torch.from_numpy,
        numbered((KEY_HEADS * (2 * KD + 2 * REPEAT * VD), HIDDEN), (KEY_HEADS * 2 * REPEAT, HIDDEN)),
    )
    q, k, v, z = qkvz.view(KEY_HEADS, -1, HIDDEN).split([KD, KD, REPEAT * VD, REPEAT * VD], 1)
    b, a = ba.view(KEY_HEADS, -1, HIDDEN).split([REPEAT, REPEAT], 1)
    return (qkvz, ba), (q, k, v, z, b, a)


@pytest.mark.parametrize("tp", TP)
def test_gated_deltanet_in_projection_comes_from_two_interleaved_tensors(tp):
    # An axis inside of each key head holds all that it has; each piece is a range of it.
    qkvz, ba = "2 * kd + 2 * r * vd", "2 * r"
    sizes = {**DELTA, "qkvz": 2 * KD + 2 * REPEAT * VD, "ba": 2 * REPEAT}
    pieces = [
        ("qkvz", "[:kd]"),
        ("qkvz", "[kd:2 * kd]"),
        ("qkvz", "[2 * kd:2 * kd + r * vd]"),
        ("qkvz", f"[2 * kd + r * vd:{qkvz}]"),
        ("ba", "[:r]"),
        ("ba", f"[r:{ba}]"),
    ]
    rule = Rule(
        "linear_attn.in_proj.weight",
        " | ".join(f"(kh {axis}{part}) hidden" for axis, part in pieces),
        (Source("qkvz", "(kh qkvz) hidden"), Source("ba", "(kh ba) hidden")),
        {"kh": TENSOR},
    )
    tensors, by_head = gdn_sources()

    def expected(rank):
        return torch.cat([cut(piece.reshape(-1, HIDDEN), tp, rank) for piece in by_head])

    check(rule, sizes, tensors, tp, expected)


@pytest.mark.parametrize("tp", TP)
def test_gated_deltanet_vectors_are_cut_by_key_heads(tp):
    (a_log,) = map(torch.from_numpy, numbered((VALUE_HEADS,)))
    rule = whole("linear_attn.A_log", "a_log", "(kh r)", cuts={"kh": TENSOR})
    check(rule, DELTA, [a_log], tp, lambda rank: cut(a_log, tp, rank))


@pytest.mark.parametrize("tp", TP)
def test_gated_deltanet_convolution_is_cut_by_heads_in_each_section(tp):
    (weight,) = map(torch.from_numpy, numbered((KEY_HEADS * (2 * KD + REPEAT * VD), 1, KERNEL)))
    axes = "(qk[0] kh kd) 1 kernel | (qk[1] kh kd) 1 kernel | (kh r vd) 1 kernel"
    rule = whole("linear_attn.conv1d.weight", "conv", axes, cuts={"kh": TENSOR})

    def expected(rank):
        sections = weight.split([KEY_HEADS * KD, KEY_HEADS * KD, VALUE_HEADS * VD])
        return torch.cat([cut(section, tp, rank) for section in sections])

    check(rule, {**DELTA, "qk": 2, "kernel": KERNEL}, [weight], tp, expected)


@pytest.mark.parametrize("tp", TP)
def test_vector_of_unequal_segments_is_cut_in_each(tp):
    one, other, third = map(torch.from_numpy, numbered((8,), (12,), (20,)))
    rule = Rule("bias", "a | b | c", (Source("a", "a"), Source("bc", "b | c")), {"a": TENSOR, "b": TENSOR, "c": TENSOR})
    both = torch.cat([other, third])

    def expected(rank):
        return torch.cat([cut(one, tp, rank), cut(other, tp, rank), cut(third, tp, rank)])

    check(rule, {"a": 8, "b": 12, "c": 20}, [one, both], tp, expected)


def test_segment_that_nothing_cuts_is_whole_on_every_rank():
    (weight,) = map(torch.from_numpy, numbered((8 + 6, 5)))
    rule = whole("w", "w", "a x | b x", cuts={"a": TENSOR})
    check(rule, {"a": 8, "b": 6, "x": 5}, [weight], 2, lambda rank: torch.cat([cut(weight[:8], 2, rank), weight[8:]]))
