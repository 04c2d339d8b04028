"""What a training run of a small model records, and how the way back reads it."""

from mscvt.dialects.args_read import read_hyperparameters, read_options
from mscvt.dialects.mindspeed.args_words import in_our_words
from mscvt.dialects.options import Options
from mscvt.model.family import Layer, ModelType
from mscvt.model.fields import count
from mscvt.model.options import with_defaults
from mscvt.plugins.blocks import DECODER
from mscvt.plugins.family import Family, Plugin

H = {
    "num_layers": 6,
    "hidden_size": 20,
    "ffn_hidden_size": 14,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 5,
    "vocab_size": 22,
    "tie_word_embeddings": False,
    "norm_epsilon": 1e-5,
    "rotary_base": 5e5,
    "seq_length": 64,
}
"""What a config.json says of a small model, under our names."""
TRAINED = {
    "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1,
    "num_layers": 6,
    "hidden_size": 20,
    "ffn_hidden_size": 14,
    "num_attention_heads": 4,
    "group_query_attention": True,
    "num_query_groups": 2,
    "kv_channels": 5,
    "vocab_size": 22,
    "untie_embeddings_and_output_weights": True,
    "norm_epsilon": 1e-5,
    "rotary_base": 500000,
    "seq_length": 64,
}
"""What a training run of it records, on one rank."""


def family(layer=("attention", "mlp"), dense=0, **fields):
    """A family whose layers, after some dense ones, are of one kind."""
    names = {**DECODER, "moe": {"moe.router": "model.layers.{layer}.gate.weight"}}
    kinds = [("attention", "mlp")] * dense + [layer] * (6 - dense)
    hooks = {
        "mscvt_names": lambda model_type, block, hyperparameters: names.get(block),
        "mscvt_layers": lambda model_type, hyperparameters: [Layer(n, kind) for n, kind in enumerate(kinds)],
    }
    return Family(ModelType("small", ("small",), fields), Plugin("mscvt-small", "1", "small = small"), hooks)


EXPERT_FIELDS = {"num_experts": count("num_experts"), "moe_intermediate_size": count("moe_intermediate_size")}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 6}


def mixture(dense=0):
    return family(("attention", "moe"), dense, **EXPERT_FIELDS)


def words(args, *fields, has_experts=False):
    return in_our_words(args, {"num_experts", *fields} if has_experts else ())


def options_of(args, *, has_experts=False, **asked):
    """The options as the way back reads them."""
    return read_options(words(args, has_experts=has_experts).args, Options(**asked))[0]


def sizes_of(args, configured=None, made=None, **asked):
    """The sizes as the way back reads them."""
    made = made or family()
    spoken = words(args, has_experts="num_experts" in made.model_type.fields).args
    options = with_defaults(read_options(spoken, Options(**asked))[0])
    return read_hyperparameters(spoken, made, options, configured)
