"""A checkpoint as a training run leaves it that knows nothing of mscvt, and the way back through the command line."""

import json
from argparse import Namespace

import torch

from command_line import run_main
from reference_converter import expected_return
from test_properties import assert_same, read_huggingface


def recorded(config, tensor=1, stages=1, **more):
    """The args of a training run that knows nothing of mscvt, under Megatron's own names."""
    values = {
        "tensor_model_parallel_size": tensor,
        "pipeline_model_parallel_size": stages,
        "expert_model_parallel_size": 1,
        "expert_tensor_parallel_size": tensor,
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "group_query_attention": True,
        "num_query_groups": config["num_key_value_heads"],
        "kv_channels": config["head_dim"],
        "vocab_size": config["vocab_size"],
        "padded_vocab_size": config["vocab_size"],
        "norm_epsilon": config["rms_norm_eps"],
        "rotary_base": int(config["rope_theta"]),
        "max_position_embeddings": config["max_position_embeddings"],
        "untie_embeddings_and_output_weights": True,
        "transformer_impl": "local",
        "num_experts": config.get("num_experts"),
        "noop_layers": None,
        "num_layers_per_virtual_pipeline_stage": None,
        "virtual_pipeline_model_parallel_size": None,
        "moe_grouped_gemm": False,
        "mtp_num_layers": None,
        "params_dtype": torch.bfloat16,
    }
    if "num_experts" in config:
        values["moe_ffn_hidden_size"] = config["moe_intermediate_size"]
    return Namespace(**{**values, **more})


def record(run, args, **more):
    """Save all shards again with what a run keeps beside its weights."""
    for path in run.shards:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, weights_only=True)
        torch.save({**state, "args": args, **more}, path)


def assert_way_back(run, *options, load_dir=None):
    """`mscvt mg2hf` gives the source back, byte for byte; returns what it said."""
    where = ("--load-dir", load_dir or run.mg, "--save-dir", run.back, "--hf-cfg-dir", run.hf)
    outcome = run_main("mg2hf", *where, *options)
    assert outcome.code == 0, outcome.err
    assert_same(read_huggingface(run.back), expected_return(run.case, run.source))
    return outcome.out


def config_of(folder):
    return json.loads((folder / "config.json").read_text())
