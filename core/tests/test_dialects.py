"""Keys and layouts of the dialect: tables by hand, and a proof that every rule covers both sides."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walks import places

from mscvt.dialects.mindspeed import check, rules
from mscvt.dialects.options import Options
from mscvt.dialects.sizes import sizes, uneven
from mscvt.errors import MscvtError
from mscvt.layout.layout import resolve
from mscvt.layout.notation import axes_of
from mscvt.layout.pairs import uncovered
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, PADDING, TENSOR
from mscvt.model.options import with_defaults

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


def rules_of(is_tied=False, **options):
    return rules(with_defaults(Options(**options)), {"tie_word_embeddings": is_tied})


def holding(table, h, fused=False):
    """The rules whose sizes a model has, with their layouts; names of experts hold the expert unless they are fused."""
    found = sizes(h)
    mtp = [rule for beside in table.mtp.values() for rule in beside]
    ends = [end.rule for end in (*table.first, *table.last)]
    for rule in (*(rule for layer in table.layer for rule in layer), *ends, *mtp):
        if axes_of(rule.axes) <= found.keys():
            held = [
                frozenset({"expert"} if source.role.startswith("moe.expert.") and not fused else ())
                for source in rule.sources
            ]
            yield rule, resolve(rule, found, held)


def keys(**options):
    return {rule.key for table in rules_of(**options).layer for rule in table}


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
    fused = {f"self_attention.linear_qkv.layer_norm_{part}" for part in ("weight", "bias")}
    fused |= {f"mlp.linear_fc1.layer_norm_{part}" for part in ("weight", "bias")}
    assert fused <= keys(transformer_impl="transformer_engine")
    assert not fused & keys()
    gated, plain, *_ = rules_of(transformer_impl="transformer_engine").layer
    assert [(rule.key, *rule.roles, *rule.beside) for rule in gated] == [
        ("self_attention.linear_qkv.layer_norm_weight", "norm.input", "attention.q"),
        ("self_attention.linear_qkv.layer_norm_weight", "norm.input", "attention.qkv"),
        ("self_attention.linear_qkv.layer_norm_bias", "norm.input_bias", "attention.q"),
        ("self_attention.linear_qkv.layer_norm_bias", "norm.input_bias", "attention.qkv"),
        ("mlp.linear_fc1.layer_norm_weight", "norm.pre_mlp", "mlp.gate"),
        ("mlp.linear_fc1.layer_norm_weight", "norm.pre_mlp", "mlp.gate_up"),
        ("mlp.linear_fc1.layer_norm_bias", "norm.pre_mlp_bias", "mlp.gate"),
        ("mlp.linear_fc1.layer_norm_bias", "norm.pre_mlp_bias", "mlp.gate_up"),
    ]
    assert [(rule.key, *rule.roles, *rule.beside) for rule in plain] == [
        ("mlp.linear_fc1.layer_norm_weight", "norm.pre_mlp", "mlp.up"),
        ("mlp.linear_fc1.layer_norm_bias", "norm.pre_mlp_bias", "mlp.up"),
    ]


def test_keys_of_layers_begin_with_one_of_the_prefixes():
    assert set(rules_of().prefixes) == {"decoder.layers.", "mtp.layers.", "mtp.final_layernorms."}


def test_latent_up_projections_are_divided_with_mm_split():
    whole = {"self_attention.linear_q_up_proj.weight", "self_attention.linear_kv_up_proj.weight"}
    split = {f"self_attention.linear_{name}.weight" for name in ("qk_nope", "qk_rope", "kv_nope", "v")}
    assert whole <= keys()
    assert not split & keys()
    assert split <= keys(mla_mm_split=True)
    assert not whole & keys(mla_mm_split=True)


PP = "target_pipeline_parallel_size"
EMBEDDING, HEAD = "embedding.word_embeddings.weight", "output_layer.weight"
NORM, FINAL = "decoder.final_layernorm", "final_layernorm"
LAST = [  # options, whether embeddings are tied, the norm, what follows its bias and the bias of the output layer
    ({}, False, NORM, [(HEAD, False)]),
    ({"mtp_num_layers": 2}, False, FINAL, [(HEAD, False)]),
    ({PP: 2}, False, NORM, [(HEAD, False)]),
    ({}, True, NORM, []),
    ({PP: 2}, True, NORM, [(HEAD, True)]),
    ({PP: 2, "mtp_num_layers": 1}, False, FINAL, [(HEAD, False), (EMBEDDING, True)]),
    ({PP: 2, "mtp_num_layers": 1}, True, FINAL, [(HEAD, True), (EMBEDDING, True)]),
]


@pytest.mark.parametrize(("options", "is_tied", "norm", "expected"), LAST)
def test_ends_of_the_model_and_which_of_them_are_copies(options, is_tied, norm, expected):
    table = rules_of(is_tied=is_tied, **options)
    assert [(end.rule.key, end.is_copy) for end in table.first] == [(EMBEDDING, False)]
    always = [(key, False) for key in (f"{norm}.weight", f"{norm}.bias", "output_layer.bias")]
    assert [(end.rule.key, end.is_copy) for end in table.last] == always + expected
    assert all(end.rule.roles == {"embedding"} for end in table.last if end.is_copy)


SHAPES = {  # (key, first role) -> (shape on one rank of TP 2, EP 4, ETP 2; shapes of its sources)
    ("self_attention.linear_qkv.weight", "attention.q"): ((30, 20), [(36, 20), (12, 20), (12, 20)]),
    ("self_attention.linear_qkv.weight", "attention.qkv"): ((30, 20), [(60, 20)]),
    ("self_attention.linear_qkv.bias", "attention.q_bias"): ((30,), [(36,), (12,), (12,)]),
    ("self_attention.linear_proj.weight", "attention.proj"): ((20, 18), [(20, 36)]),
    ("self_attention.linear_proj.bias", "attention.proj_bias"): ((20,), [(20,)]),
    ("self_attention.q_layernorm.weight", "attention.q_norm"): ((3,), [(3,)]),
    ("mlp.linear_fc1.weight", "mlp.gate"): ((12, 20), [(12, 20), (12, 20)]),
    ("mlp.linear_fc1.weight", "mlp.gate_up"): ((12, 20), [(24, 20)]),
    ("mlp.linear_fc1.weight", "mlp.up"): ((6, 20), [(12, 20)]),
    ("mlp.linear_fc2.weight", "mlp.down"): ((20, 6), [(20, 12)]),
    ("mlp.linear_fc1.bias", "mlp.gate_bias"): ((12,), [(12,), (12,)]),
    ("mlp.linear_fc1.bias", "mlp.gate_up_bias"): ((12,), [(24,)]),
    ("mlp.linear_fc1.bias", "mlp.up_bias"): ((6,), [(12,)]),
    ("mlp.linear_fc2.bias", "mlp.down_bias"): ((20,), [(20,)]),
    ("mlp.router.weight", "moe.router"): ((8, 20), [(8, 20)]),
    ("mlp.experts.weight1", "moe.expert.gate"): ((20, 2 * 2 * 8), [(16, 20)] * 2),
    ("mlp.experts.weight1", "moe.expert.gate_up"): ((20, 2 * 2 * 8), [(32, 20)]),
    ("mlp.experts.weight2", "moe.expert.down"): ((2 * 8, 20), [(20, 16)]),
    ("embedding.word_embeddings.weight", "embedding"): ((12, 20), [(22, 20), (2, 20)]),
    ("output_layer.bias", "head_bias"): ((12,), [(22,), (2,)]),
    ("decoder.final_layernorm.bias", "norm.final_bias"): ((20,), [(20,)]),
    ("input_layernorm.weight", "norm.input"): ((20,), [(20,)]),
}
LATENT_SHAPES = {
    ("self_attention.linear_qkv.weight", "mla.q_down"): ((14, 20), [(7, 20), (7, 20)]),
    ("self_attention.linear_proj.weight", "mla.proj"): ((20, 18), [(20, 36)]),
    ("self_attention.linear_qk_nope.weight", "mla.q_up"): ((12, 7), [(32, 7)]),
    ("self_attention.linear_qk_rope.weight", "mla.q_up"): ((4, 7), [(32, 7)]),
    ("self_attention.linear_kv_nope.weight", "mla.kv_up"): ((12, 5), [(60, 5)]),
    ("self_attention.linear_v.weight", "mla.kv_up"): ((18, 5), [(60, 5)]),
    ("mlp.shared_experts.linear_fc1.weight", "moe.shared.gate"): ((48, 20), [(48, 20), (48, 20)]),
    ("mlp.shared_experts.linear_fc2.weight", "moe.shared.down"): ((20, 24), [(20, 48)]),
    ("eh_proj.weight", "mtp.proj"): ((10, 40), [(20, 40)]),
}
COUNTS = {TENSOR: 2, EXPERT: 4, EXPERT_TENSOR: 2}


@pytest.mark.parametrize(("h", "expected"), [(EXPERTS, SHAPES), (LATENT, LATENT_SHAPES)], ids=["plain", "latent"])
def test_shapes_on_a_rank_and_of_the_sources(h, expected):
    table = rules_of(moe_grouped_gemm=True, mla_mm_split=True)
    found = {}
    for rule, layout in holding(table, h):
        share, *_ = layout.shares(COUNTS, [tuple(0 for _ in layout.dimensions)])
        found[rule.key, rule.sources[0].role] = (share.shape, [side.shape for side in layout.right])
    assert {key: found[key] for key in expected} == expected


@given(
    st.sampled_from([PLAIN, EXPERTS, LATENT, {**LATENT, "q_lora_rank": None}]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 8]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["local", "transformer_engine"]),
    st.booleans(),
)
def test_every_rule_fills_every_share_and_takes_every_source_once(h, tp, ep, whole, grouped, split, module, fused):
    table = rules_of(moe_grouped_gemm=grouped, mla_mm_split=split, transformer_impl=module)
    counts = {TENSOR: tp, EXPERT: ep, EXPERT_TENSOR: 1 if whole else tp}
    taken: dict[tuple, list] = {}
    names = {}
    for number, (rule, layout) in enumerate(holding(table, h, fused)):
        assert not list(layout.uneven(counts)), rule.key
        for share in layout.shares(counts, places(layout, counts)):
            assert uncovered(prod(share.shape), [piece.pair for piece in share.pieces]) is None, rule.key
            for piece in share.pieces:
                side = layout.right[piece.source]
                if side.name != PADDING:
                    # divided projections share a source, every other rule has its own
                    owner = side.name if side.name in ("mla.q_up", "mla.kv_up") else number
                    taken.setdefault((owner, side.name, piece.held), []).append(piece.pair.inverse())
                    names[owner, side.name, piece.held] = side.numel
    for source, pairs in taken.items():
        assert uncovered(names[source], pairs) is None, source


def test_divided_projections_take_every_row_of_their_source():
    found = {rule.key: layout for rule, layout in holding(rules_of(mla_mm_split=True), LATENT)}
    for upper, lower in (("qk_nope", "qk_rope"), ("kv_nope", "v")):
        layouts = [found[f"self_attention.linear_{name}.weight"] for name in (upper, lower)]
        pairs = [
            piece.pair.inverse()
            for layout in layouts
            for share in layout.shares({TENSOR: 1}, [(0,)])
            for piece in share.pieces
        ]
        assert uncovered(layouts[0].right[0].numel, pairs) is None
        assert uncovered(layouts[0].right[0].numel, pairs[:1]) is not None


def test_sizes_follow_from_hyperparameters():
    found = sizes(EXPERTS)
    assert {name: found[name] for name in ("group", "queries", "slot", "channel", "joined", "vocab", "real_vocab")} == {
        "group": 4,
        "queries": 3,
        "slot": 5,
        "channel": 3,
        "joined": 40,
        "vocab": 24,
        "real_vocab": 22,
    }
    assert "shared_ffn" not in found
    latent = sizes(LATENT)
    assert (latent["qk"], latent["kv"], latent["down"], latent["q_down"]) == (8, 15, 14, 7)
    assert latent["shared_ffn"] == 48
    assert sizes({**LATENT, "moe_shared_expert_intermediate_size": 11})["shared_ffn"] == 11
    assert sizes({**LATENT, "q_lora_rank": None})["q_down"] == 4 * 8
    assert "q_rank" not in sizes({**LATENT, "q_lora_rank": None})


def test_model_without_attention_has_the_sizes_of_the_rest():
    found = sizes({"hidden_size": 20, "vocab_size": 22, "padded_vocab_size": 22, "ssm_state": 16, "tied": True})
    assert (found["hidden"], found["ssm_state"]) == (20, 16)
    assert not {"head", "group", "ffn", "expert", "tied"} & found.keys()


@pytest.mark.parametrize(
    ("options", "axis", "dimension", "said"),
    [
        ({"target_tensor_parallel_size": 4}, "group", TENSOR, "6 kv groups (num_key_value_heads) are not divisible by "
         "--target-tensor-parallel-size 4"),
        ({}, "own_axis", TENSOR, "6 own_axis are not divisible by --target-tensor-parallel-size 4"),
        ({}, "expert", EXPERT, "6 experts are not divisible by --target-expert-parallel-size 4"),
        ({"moe_tp_extend_ep": True, "target_expert_parallel_size": 2, "target_tensor_parallel_size": 2}, "expert",
         EXPERT, "6 experts are not divisible by the 4 ranks that --moe-tp-extend-ep spreads them over "
         "(--target-expert-parallel-size 2 x --target-tensor-parallel-size 2)"),
    ],
)  # fmt: skip
def test_uneven_sizes_are_told_with_the_option_that_cuts_them(options, axis, dimension, said):
    fault, hint = uneven(with_defaults(Options(**options)), axis, 6, dimension, 4)
    assert (fault, hint) == (said, "Choose a size that divides 6.")


def test_uneven_vocabulary_is_told_how_to_pad_it():
    assert "--make-vocab-size-divisible-by 1" in uneven(Options(), "vocab", 13, TENSOR, 4)[1]


def test_vocabulary_that_needs_no_padding_has_none():
    for padded, roles in ((22, ["embedding"]), (24, ["embedding", PADDING])):
        layout = resolve(rules_of().first[0].rule, sizes({**PLAIN, "padded_vocab_size": padded}), [frozenset()] * 2)
        assert [side.name for side in layout.right] == roles


def test_transformer_engine_and_mtp_contradict_each_other():
    with pytest.raises(MscvtError, match="--transformer-impl transformer_engine and --mtp-num-layers 1"):
        check(with_defaults(Options(transformer_impl="transformer_engine", mtp_num_layers=1)), {}, ())
    check(with_defaults(Options(transformer_impl="transformer_engine")), {}, ())
