"""A small made-up family with a dense layer, a layer of experts and an MTP layer, and checkpoints of it."""

from mscvt.description.description import describe
from mscvt.dialects import mindspeed
from mscvt.dialects.options import Options
from mscvt.model.family import DENSE, MOE, MTP, Layer, ModelType
from mscvt.model.layers import select_layers
from mscvt.model.options import with_defaults
from mscvt.plan.by_huggingface import uses_by_name
from mscvt.plugins.blocks import ATTENTION, DECODER, NORMS
from mscvt.plugins.defaults import mscvt_placement
from mscvt.plugins.family import Family, Plugin
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
    **DECODER,
    "attention": NORMS | ATTENTION,
    "moe": {"moe.router": L + "gate.weight", "moe.router_bias": L + "gate.bias", **EXPERTS},
    MTP: {
        "mtp.embedding_norm": L + "enorm.weight",
        "mtp.hidden_norm": L + "hnorm.weight",
        "mtp.proj": L + "proj.weight",
        "mtp.final_norm": L + "norm.weight",
        "embedding": L + "embed.weight",
        "head": L + "head.weight",
    },
}


def family(layers=None, rules=(), names=NAMES, sizes=lambda h: {}):
    layers = layers or [Layer(0, DENSE), Layer(1, MOE), Layer(2, MOE, mtp=0)]
    hooks = {
        "mscvt_names": lambda model_type, block, hyperparameters: names.get(block),
        "mscvt_layers": lambda model_type, hyperparameters: layers,
        "mscvt_split_rules": lambda model_type, hyperparameters, blocks: rules,
        "mscvt_placement": lambda model_type, topology, layers: mscvt_placement(topology, layers),
    }
    return Family(ModelType("small", ("small",), sizes=sizes), Plugin("mscvt-small", "1", "small = small"), hooks)


def description(h=H, made=None, absent=(), **options):
    made = made or family()
    filled = with_defaults(Options(**options))
    selection = select_layers(made.layers(h), filled)
    topology = mindspeed.topology(filled, selection.decoder_count)
    return describe(made, h, filled, topology, selection, mindspeed, absent=absent)


def source_of(described, dtype="BF16"):
    """A checkpoint with exactly what is needed, in one file, in the order of the description."""
    found, offset = {}, 0
    for name, uses in uses_by_name(described).items():
        its = "F32" if uses[0].parameter.keeps_dtype else dtype
        found[name] = TensorInfo(its, uses[0].side.shape, 0, offset)
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
