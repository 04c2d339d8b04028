"""Keys and layouts of the dialect: tables by hand, and a proof that every rule covers both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscvt.dialects.mindspeed.options import Options
from mscvt.dialects.mindspeed.rules import EMBEDDING, axis_sizes, choose_dialect
from mscvt.layout.layout import uncovered
from mscvt.layout.rules import PADDING, resolve
from mscvt.parallel.topology import EXPERT, EXPERT_TENSOR, TENSOR

BASE = {"hidden_size": 20, "vocab_size": 22, "padded_vocab_size": 24, "ffn_hidden_size": 12}
PLAIN = {**BASE, "num_attention_heads": 12, "num_query_groups": 4, "kv_channels": 3}
EXPERTS = {**PLAIN, "num_experts": 8, "moe_intermediate_size": 16}
LATENT = {
    **BASE,
    "num_attention_heads": 4,
    "num_query_groups": 4,
    "num_experts": 8,
    "moe_intermediate_size": 16,
    "n_shared_experts": 3,
    "q_lora_rank": 7,
    "kv_lora_rank": 5,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 2,
    "v_head_dim": 9,
}


def holding(dialect, h):
    """The rules whose sizes a model has, without those that only fused norms replace."""
    sizes = axis_sizes(h)
    for rule in (*(rule for table in dialect.layer for rule in table), *dialect.first, *dialect.last, *dialect.mtp):
        axes = " ".join([rule.axes, *(run.axes for run in rule.rows)]).replace("(", " ").replace(")", " ").split()
        if set(axes) <= sizes.keys():
            yield rule, resolve(rule, sizes).layout


def keys(**options):
    return {rule.key for table in choose_dialect(Options(**options)).layer for rule in table}


def test_expert_keys_depend_on_grouping_and_implementation():
    one_by_one = {f"mlp.experts.local_experts.{{expert}}.linear_fc{n}.weight" for n in (1, 2)}
    grouped = {"mlp.experts.weight1", "mlp.experts.weight2"}
    fused = {f"mlp.experts.linear_fc{n}.weight{{expert}}" for n in (1, 2)}

    def found(**options):
        return {key for key in keys(**options) if "mlp.experts." in key}

    assert found() == one_by_one
    assert found(transformer_impl="transformer_engine") == one_by_one
    assert found(moe_grouped_gemm=True) == grouped
    assert found(moe_grouped_gemm=True, transformer_impl="transformer_engine") == fused


def test_fused_norms_need_the_projection_that_they_are_fused_with():
    fused = {"self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight"}
    assert fused <= keys(transformer_impl="transformer_engine")
    assert not fused & keys()
    table = choose_dialect(Options(transformer_impl="transformer_engine")).layer[0]
    beside = {rule.key: (rule.roles, rule.beside) for rule in table}
    assert beside == {
        "self_attention.linear_qkv.layer_norm_weight": ({"norm.input"}, {"attention.q"}),
        "mlp.linear_fc1.layer_norm_weight": ({"norm.pre_mlp"}, {"mlp.gate"}),
    }


def test_latent_up_projections_are_divided_with_mm_split():
    whole = {"self_attention.linear_q_up_proj.weight", "self_attention.linear_kv_up_proj.weight"}
    split = {f"self_attention.linear_{name}.weight" for name in ("qk_nope", "qk_rope", "kv_nope", "v")}
    assert whole <= keys()
    assert not split & keys()
    assert split <= keys(mla_mm_split=True)
    assert not whole & keys(mla_mm_split=True)


@pytest.mark.parametrize(("depth", "key"), [(0, "decoder.final_layernorm.weight"), (2, "final_layernorm.weight")])
def test_final_norm_loses_its_prefix_with_mtp(depth, key):
    assert [rule.key for rule in choose_dialect(Options(mtp_num_layers=depth)).last] == [key, "output_layer.weight"]


SHAPES = {  # key -> (shape on one rank of TP 2, EP 4, ETP 2; shapes of its parts)
    "self_attention.linear_qkv.weight": ((30, 20), [(36, 20), (12, 20), (12, 20)]),
    "self_attention.linear_proj.weight": ((20, 18), [(20, 36)]),
    "self_attention.q_layernorm.weight": ((3,), [(3,)]),
    "mlp.linear_fc1.weight": ((12, 20), [(12, 20), (12, 20)]),
    "mlp.linear_fc2.weight": ((20, 6), [(20, 12)]),
    "mlp.router.weight": ((8, 20), [(8, 20)]),
    "mlp.experts.weight1": ((20, 2 * 2 * 8), [(16, 20)] * 16),
    "mlp.experts.weight2": ((2 * 8, 20), [(20, 16)] * 8),
    "embedding.word_embeddings.weight": ((12, 20), [(22, 20), (2, 20)]),
    "input_layernorm.weight": ((20,), [(20,)]),
}
LATENT_SHAPES = {
    "self_attention.linear_qkv.weight": ((14, 20), [(7, 20), (7, 20)]),
    "self_attention.linear_proj.weight": ((20, 18), [(20, 36)]),
    "self_attention.linear_qk_nope.weight": ((12, 7), [(32, 7)]),
    "self_attention.linear_qk_rope.weight": ((4, 7), [(32, 7)]),
    "self_attention.linear_kv_nope.weight": ((12, 5), [(60, 5)]),
    "self_attention.linear_v.weight": ((18, 5), [(60, 5)]),
    "mlp.shared_experts.linear_fc1.weight": ((48, 20), [(48, 20), (48, 20)]),
    "mlp.shared_experts.linear_fc2.weight": ((20, 24), [(20, 48)]),
    "mtp.layers.{layer}.eh_proj.weight": ((10, 40), [(20, 40)]),
}
COUNTS = {TENSOR: 2, EXPERT: 4, EXPERT_TENSOR: 2}


@pytest.mark.parametrize(("h", "expected"), [(EXPERTS, SHAPES), (LATENT, LATENT_SHAPES)], ids=["plain", "latent"])
def test_shapes_on_a_rank_and_of_the_sources(h, expected):
    dialect = choose_dialect(Options(moe_grouped_gemm=True, mla_mm_split=True))
    found = {
        rule.key: (layout.shape(COUNTS), [layout.part_shape(part) for part in range(len(layout.parts))])
        for rule, layout in holding(dialect, h)
    }
    assert {key: found[key] for key in expected} == expected


@given(
    st.sampled_from([PLAIN, EXPERTS, LATENT, {**LATENT, "q_lora_rank": None}]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 8]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["local", "transformer_engine"]),
)
def test_every_rule_fills_every_share_and_takes_every_source_once(h, tp, ep, whole, grouped, split, implementation):
    options = Options(moe_grouped_gemm=grouped, mla_mm_split=split, transformer_impl=implementation)
    counts = {TENSOR: tp, EXPERT: ep, EXPERT_TENSOR: 1 if whole else tp}
    for rule, layout in holding(choose_dialect(options), h):
        assert not list(layout.uneven(counts)), rule.key
        index = dict.fromkeys(counts, 0)
        base = 0
        for segment in layout.segments:
            sizes = [size // counts[layout.cuts[a]] if a in layout.cuts else size for a, size in segment.axes]
            for place in {tuple(sorted(index.items())), tuple(sorted((d, n - 1) for d, n in counts.items()))}:
                boxes = [p.megatron for p in layout.pieces(counts, dict(place)) if p.part in segment.parts]
                assert uncovered(sizes, boxes) is None, rule.key
                assert {box.base for box in boxes} == {base}
            size = 1
            for each in sizes:
                size *= each
            base += size
        for piece in layout.pieces(dict.fromkeys(counts, 1), index):
            taken = piece.huggingface
            if taken is not None and not (split and layout.parts[piece.part].within):
                assert uncovered([run.size for run in taken.runs], [taken]) is None, rule.key


def test_divided_projections_take_every_row_of_their_source():
    found = {rule.key: layout for rule, layout in holding(choose_dialect(Options(mla_mm_split=True)), LATENT)}
    ones, origin = dict.fromkeys(COUNTS, 1), dict.fromkeys(COUNTS, 0)
    for upper, lower in (("qk_nope", "qk_rope"), ("kv_nope", "v")):
        boxes = [
            found[f"self_attention.linear_{name}.weight"].pieces(ones, origin)[0].huggingface for name in (upper, lower)
        ]
        sizes = [run.size for run in boxes[0].runs]
        assert uncovered(sizes, boxes) is None
        assert uncovered(sizes, boxes[:1]) is not None


def test_sizes_follow_from_hyperparameters():
    sizes = axis_sizes(EXPERTS)
    assert {name: sizes[name] for name in ("group", "queries", "slot", "channel", "joined", "vocab_padding")} == {
        "group": 4,
        "queries": 3,
        "slot": 5,
        "channel": 3,
        "joined": 40,
        "vocab_padding": 2,
    }
    assert "shared_ffn" not in sizes
    latent = axis_sizes(LATENT)
    assert (latent["qk"], latent["kv"], latent["kv_down"], latent["q_down"]) == (8, 15, 7, 7)
    assert latent["shared_ffn"] == 48
    assert axis_sizes({**LATENT, "q_lora_rank": None})["q_down"] == 4 * 8
    assert "q_rank" not in axis_sizes({**LATENT, "q_lora_rank": None})


def test_vocabulary_that_needs_no_padding_has_none():
    parts = resolve(EMBEDDING, axis_sizes({**PLAIN, "padded_vocab_size": 22})).sources
    assert PADDING not in {role for role, _ in parts}
