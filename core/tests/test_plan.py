"""Plans of a small made-up family: what they prove, what they say, in which order they work."""

from dataclasses import replace

import pytest
from mscvt.plan.pieces import PieceCache

from mscvt.description.description import Alias, describe
from mscvt.dialects.mindspeed.options import Options
from mscvt.errors import MscvtError
from mscvt.layout.rules import Part, Rule, whole
from mscvt.model.family import DECODER, DENSE, MODEL, MOE, MTP, Layer, ModelType
from mscvt.model.layers import select_layers
from mscvt.model.options import with_defaults
from mscvt.parallel.topology import Rank, build_topology
from mscvt.plan import plan_to_huggingface, plan_to_megatron
from mscvt.plugins.registry import Family, Plugin
from mscvt.tensors.info import ITEM_SIZES, TensorInfo

H = {
    "num_layers": 2,
    "hidden_size": 10,
    "ffn_hidden_size": 12,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 3,
    "vocab_size": 14,
    "padded_vocab_size": 14,
    "num_experts": 4,
    "moe_intermediate_size": 6,
}
L = "model.layers.{layer}."
EXPERTS = {f"moe.expert.{p}": L + f"experts.{{expert}}.{p}.weight" for p in ("gate", "up", "down")}
NAMES = {
    MODEL: DECODER[MODEL],
    DENSE: DECODER[DENSE],
    MOE: {role: name for role, name in DECODER[DENSE].items() if not role.startswith("mlp.")}
    | {"moe.router": L + "gate.weight", "moe.router_bias": L + "gate.bias"}
    | EXPERTS,
    MTP: {
        "mtp.embedding_norm": L + "enorm.weight",
        "mtp.hidden_norm": L + "hnorm.weight",
        "mtp.proj": L + "proj.weight",
        "mtp.final_norm": L + "norm.weight",
        "embedding": L + "embed.weight",
        "head": L + "head.weight",
    },
}


def family(layers=None, rules=(), names=NAMES):
    layers = layers or [Layer(0, DENSE), Layer(1, MOE), Layer(2, MOE, mtp=0)]

    def placement(model_type, topology, layers):
        slots = topology.place_layers()
        return [
            (c.stage, c.part, n)
            for c, n in (next(slots) if layer.mtp is None else (topology.last, layer.mtp) for layer in layers)
        ]

    hooks = {
        "mscvt_names": lambda model_type, kind: names.get(kind),
        "mscvt_layers": lambda model_type, hyperparameters: layers,
        "mscvt_split_rules": lambda model_type, hyperparameters: rules,
        "mscvt_placement": placement,
    }
    return Family(ModelType("small", ("small",)), Plugin("mscvt-small", "1", "small = small"), hooks)


def description(h=H, made=None, **options):
    made = made or family()
    filled = with_defaults(Options(**options))
    selection = select_layers(made.call("mscvt_layers", hyperparameters=h), filled)
    return describe(made, h, build_topology(filled, selection.decoder_count), selection)


def source_of(described, dtype="BF16"):
    """A checkpoint with exactly what is needed, in one file, in the order of the description."""
    found, offset = {}, 0
    for parameter in described.parameters:
        for part, name in enumerate(parameter.names):
            if name is not None and name not in found:
                shape = parameter.resolved.layout.part_shape(part)
                its = "F32" if parameter.keeps_dtype else dtype
                found[name] = TensorInfo(its, shape, 0, offset)
                offset += found[name].numel * ITEM_SIZES[its]
    return found


def shards_of(plan):
    """What the Megatron side of a plan holds, as a source for the way back."""
    return {
        name: TensorInfo(dtype, shape, number, 100 * place)
        for number, file in enumerate(plan.files)
        for place, (name, (dtype, shape)) in enumerate(file.tensors.items())
    }


TP, PP, EP = (f"target_{name}_parallel_size" for name in ("tensor", "pipeline", "expert"))


def test_files_are_those_of_all_ranks_with_their_labels():
    described = description(**{TP: 2, PP: 2, EP: 2})
    plan = plan_to_megatron(described, source_of(described))
    assert [file.path for file in plan.files] == [
        f"iter_0000001/mp_rank_{t:02d}_{p:03d}_{e:03d}/model_optim_rng.pt"
        for t in range(2)
        for e in range(2)
        for p in range(2)
    ]
    assert dict(plan.files[3].labels) == {"tp": 0, "pp": 1, "ep": 1}
    assert {rank for rank, _, _ in plan.files[3].tensors} == {Rank(0, 1, 1)}
    assert plan.files[3].tensors[Rank(0, 1, 1), "model", "output_layer.weight"] == ("BF16", (7, 10))
    assert plan.nbytes == sum(file.nbytes for file in plan.files)


@pytest.mark.parametrize("options", [{}, {TP: 2, PP: 2}, {TP: 2, EP: 2}, {EP: 4, "moe_grouped_gemm": True}], ids=str)
@pytest.mark.parametrize("depth", [0, 1])
def test_units_write_every_tensor_of_every_file_once(options, depth):
    described = description(**options, mtp_num_layers=depth)
    there = plan_to_megatron(described, source_of(described))
    for plan in (there, plan_to_huggingface(described, shards_of(there))):
        written = [target for unit in plan.units() for content in unit.contents for target in content.targets]
        assert len(written) == len(set(written))
        assert set(written) == {name for file in plan.files for name in file.tensors}
        assert [unit.number for unit in plan.units()] == list(range(plan.unit_count))
        declared = {name: what for file in plan.files for name, what in file.tensors.items()}
        for unit in plan.units():
            for content in unit.contents:
                assert all(declared[target] == (content.dtype, content.shape) for target in content.targets)


def test_work_runs_in_the_order_of_the_source():
    described = description(**{TP: 2, "moe_grouped_gemm": True})
    source = dict(reversed(source_of(described).items()))
    plan = plan_to_megatron(described, source)
    offsets = [
        min(source[name].offset for name in content.sources if name is not None)
        for unit in plan.units()
        for content in unit.contents[:1]
    ]
    assert offsets == sorted(offsets)
    assert len(offsets) > 10


def test_replicas_are_one_content_with_many_targets():
    described = description(**{TP: 2, EP: 2})
    plan = plan_to_megatron(described, source_of(described))
    contents = {content.targets[0][2]: content for unit in plan.units() for content in unit.contents}
    assert len(contents["decoder.final_layernorm.weight"].targets) == 4
    assert len(contents["output_layer.weight"].targets) == 2


def test_all_that_is_wrong_with_a_source_is_shown_at_once():
    described = description()
    source = source_of(described)
    del source["model.norm.weight"]
    source["model.layers.0.self_attn.q_proj.bias"] = TensorInfo("BF16", (12,), 0, 0)
    source["model.layers.1.gate.weight"] = TensorInfo("BF16", (5, 10), 0, 0)
    with pytest.raises(MscvtError) as caught:
        plan_to_megatron(described, source)
    assert list(caught.value.faults) == [
        "missing: model.norm.weight",
        "no rule takes: model.layers.0.self_attn.q_proj.bias",
        "model.layers.1.gate.weight has the shape [5, 10], expected [4, 10] from config.json",
    ]


def test_tensors_that_hold_no_weights_are_left_out_and_said_so():
    described = description()
    extra = {"model.layers.0.rotary.inv_freq": TensorInfo("F32", (2,), 0, 0)}
    plan = plan_to_megatron(described, source_of(described) | extra, left_out={"*.inv_freq": "holds no weights"})
    assert dict(plan.left_out) == {"model.layers.0.rotary.inv_freq": "holds no weights"}


def test_mtp_layers_that_nobody_asked_for_are_left_out_and_said_so():
    with_mtp = source_of(description(mtp_num_layers=1))
    plan = plan_to_megatron(description(), with_mtp)
    assert set(plan.left_out.values()) == {"MTP layers not asked for"}
    assert plan.left_out.keys() == with_mtp.keys() - source_of(description()).keys()


def test_repeated_tensors_must_be_equal_and_are_given_back():
    described = description(mtp_num_layers=1)
    assert described.aliases == {
        "model.layers.2.embed.weight": Alias("model.embed_tokens.weight", is_written=True),
        "model.layers.2.head.weight": Alias("lm_head.weight", is_written=True),
    }
    source = source_of(described)
    repeated = {"model.layers.2.head.weight": source["lm_head.weight"]}
    plan = plan_to_megatron(described, source | repeated)
    assert plan.equal == (("lm_head.weight", "model.layers.2.head.weight", 140),)
    back = plan_to_huggingface(described, shards_of(plan))
    assert {name for file in back.files for name in file.tensors} == source.keys() | described.aliases.keys()


def test_repeated_tensor_of_another_shape_is_refused():
    described = description(mtp_num_layers=1)
    wrong = {"model.layers.2.head.weight": TensorInfo("BF16", (13, 10), 0, 0)}
    with pytest.raises(MscvtError, match=r"model.layers.2.head.weight repeats lm_head.weight"):
        plan_to_megatron(described, source_of(described) | wrong)


def test_dtypes_are_kept_or_converted_but_for_what_keeps_its_own():
    described = description()
    key = "decoder.layers.1.mlp.router.expert_bias"
    for dtype, expected in ((None, "BF16"), ("F32", "F32"), ("F16", "F16")):
        (file,) = plan_to_megatron(described, source_of(described), dtype=dtype).files
        found = {name: what for (_, _, name), (what, _) in file.tensors.items()}
        assert found.pop(key) == "F32"
        assert set(found.values()) == {expected}


def test_tensors_of_two_dtypes_in_one_are_refused_unless_a_dtype_is_asked_for():
    described = description()
    source = source_of(described)
    name = "model.layers.0.mlp.up_proj.weight"
    source[name] = TensorInfo("F32", source[name].shape, 0, 0)
    with pytest.raises(MscvtError, match=r"different dtypes \(BF16, F32\)"):
        plan_to_megatron(described, source)
    plan_to_megatron(described, source, dtype="BF16")


def test_all_that_is_wrong_with_shards_is_shown_at_once():
    described = description(**{TP: 2})
    shards = shards_of(plan_to_megatron(described, source_of(described)))
    rank = Rank(1, 0, 0)
    del shards[rank, "model", "decoder.final_layernorm.weight"]
    shards[rank, "model", "decoder.layers.0.lora"] = TensorInfo("BF16", (2,), 1, 0)
    shards[rank, "model", "output_layer.weight"] = TensorInfo("BF16", (8, 10), 1, 0)
    with pytest.raises(MscvtError) as caught:
        plan_to_huggingface(described, shards)
    where = "(model of rank tp 1, pp 0, ep 0)"
    assert list(caught.value.faults) == [
        f"missing: decoder.final_layernorm.weight {where}",
        f"no rule knows: decoder.layers.0.lora {where}",
        f"output_layer.weight {where} has the shape [8, 10], expected [7, 10] from the checkpoint's args",
    ]


def test_huggingface_files_are_full_up_to_their_limit_and_no_tensor_is_divided():
    described = description()
    shards = shards_of(plan_to_megatron(described, source_of(described)))
    plan = plan_to_huggingface(described, shards, shard_bytes=500)
    numbers = range(1, len(plan.files) + 1)
    assert [file.path for file in plan.files] == [f"model-{n:05d}-of-{numbers[-1]:05d}.safetensors" for n in numbers]
    assert [dict(file.labels) for file in plan.files] == [{"file": n} for n in numbers]
    assert all(file.nbytes <= 500 or len(file.tensors) == 1 for file in plan.files)
    for file, following in zip(plan.files, plan.files[1:], strict=False):
        dtype, shape = next(iter(following.tensors.values()))
        size = ITEM_SIZES[dtype]
        for extent in shape:
            size *= extent
        assert file.nbytes + size > 500
    assert sum(len(file.tensors) for file in plan.files) == len(source_of(described))


GATE, UP = Part("mlp.gate", "ffn hidden"), whole("mlp.up", "mlp.up", "ffn hidden")
BROKEN = {
    "mlp.less: some of its elements come from nowhere": (
        Rule("mlp.less", "ffn hidden", (replace(GATE, at={"ffn": (0, 5)}),)),
        UP,
    ),
    "mlp.more: some of its elements come from more than one place": (
        Rule("mlp.more", "ffn hidden", (GATE, Part("mlp.up", "ffn hidden", {"ffn": (3, 1)}))),
    ),
    "layers.0.mlp.gate_proj.weight: some of its elements come from nowhere": (
        Rule("mlp.some", "ffn hidden", (replace(GATE, within={"ffn": (0, 20)}),)),
        UP,
    ),
    "mlp.up (stage 0, model) is made by two rules": (whole("mlp.up", "mlp.gate", "ffn hidden"), UP),
}


@pytest.mark.parametrize("message", BROKEN)
def test_rules_that_lose_or_repeat_elements_do_not_become_a_plan(message):
    described = description(made=family([Layer(0, DENSE)], BROKEN[message]))
    with pytest.raises(MscvtError) as caught:
        plan_to_megatron(described, source_of(described))
    assert message in str(caught.value)


def test_sizes_that_do_not_divide_are_all_named():
    with pytest.raises(MscvtError) as caught:
        description({**H, "vocab_size": 13, "padded_vocab_size": 13, "num_experts": 3}, **{TP: 4, EP: 2})
    text = str(caught.value)
    assert "13 vocabulary rows (vocab_size) are not divisible by --target-tensor-parallel-size 4" in text
    assert "2 kv groups (num_key_value_heads)" in text
    assert "3 experts are not divisible by --target-expert-parallel-size 2" in text
    assert "--make-vocab-size-divisible-by" in caught.value.hint


def test_holders_are_the_ranks_with_the_same_share():
    described = description(**{TP: 2, EP: 4}, expert_tensor_parallel_size=1)
    cache = PieceCache(described.topology)
    by_key = {(p.key, p.bucket): p for p in described.parameters}
    assert cache.holders(by_key["output_layer.weight", None]) == {(0,): ((0, 0), (0, 2)), (1,): ((1, 1), (1, 3))}
    assert cache.holders(by_key["decoder.final_layernorm.weight", None]) == {(): ((0, 0), (0, 2), (1, 1), (1, 3))}
    (expert,) = (p for (key, bucket), p in by_key.items() if bucket == 3 and key.endswith("fc1.weight"))
    assert list(cache.holders(expert).values()) == [((1, 3),)]
