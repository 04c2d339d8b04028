"""Random models and options that contract and families allow, all sizes tiny, unequal and not square.

A `Case` is built from the parallel options outwards: sizes are multiples of what cuts them, the number of
layers follows from the slots, so that every case that is drawn must convert.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("MSCVT_EXAMPLES", "0"))
"""How many examples to draw; 0 for the fixed ones of the suite."""
MODEL_TYPES = ("llama2", "qwen3", "qwen3-moe", "deepseek2", "deepseek2-lite", "deepseek3", "deepseek32")
CONFIG_TYPES = {
    "llama2": "llama",
    "qwen3": "qwen3",
    "qwen3-moe": "qwen3_moe",
    "deepseek2": "deepseek_v2",
    "deepseek2-lite": "deepseek_v2",
    "deepseek3": "deepseek_v3",
    "deepseek32": "deepseek_v32",
}
WITH_EXPERTS = MODEL_TYPES[2:]
WITH_LATENT_ATTENTION = MODEL_TYPES[3:]
WITH_MTP = MODEL_TYPES[5:]


def examples(count: int) -> settings:
    """How a test draws its examples: the same every time, unless more are asked for."""
    return settings(
        max_examples=EXAMPLES or count,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@dataclass
class Case:
    model_type: str
    config: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    back_dtype: str | None = None
    source_dtype: str = "BF16"
    has_repeated: bool = True
    """Whether the source also holds what MTP layers and tied embeddings repeat."""
    shards: int = 1
    ending: str = "safetensors"

    @property
    def tp(self) -> int:
        return self.options.get("target_tensor_parallel_size", 1)

    @property
    def pp(self) -> int:
        return self.options.get("target_pipeline_parallel_size", 1)

    @property
    def ep(self) -> int:
        return self.options.get("target_expert_parallel_size", 1)

    @property
    def mtp(self) -> int:
        return self.options.get("mtp_num_layers", 0)


def is_dense(case: Case, layer: int) -> bool:
    config = case.config
    if case.model_type == "qwen3-moe":
        return layer in config["mlp_only_layers"] or (layer + 1) % config["decoder_sparse_step"] != 0
    if case.model_type in WITH_LATENT_ATTENTION:
        return layer < config["num_hidden_layers"] and (
            layer < config["first_k_dense_replace"] or layer % config["moe_layer_freq"] != 0
        )
    return True


@st.composite
def cases(draw: st.DrawFn, model_types: tuple[str, ...] = MODEL_TYPES) -> Case:
    """Any model under any combination of options that is allowed for it."""
    model_type = draw(st.sampled_from(model_types))
    case = Case(model_type, {}, _stages(draw))
    tp = draw(st.sampled_from([1, 2, 2, 3, 4]))
    _given(draw, case, "target_tensor_parallel_size", tp, 1)
    experts, moe_ffn = _experts(draw, case, tp)
    slots = case.options.pop("slots")
    kept = slots - len(case.options.get("noop_layers", ()))
    _config(draw, case, tp, kept)
    if model_type in WITH_EXPERTS:
        name = "num_experts" if model_type == "qwen3-moe" else "n_routed_experts"
        case.config |= {name: experts, "moe_intermediate_size": moe_ffn}
    if model_type in WITH_MTP:
        depth = draw(st.integers(0, 3))
        case.config["num_nextn_predict_layers"] = depth
        _given(draw, case, "mtp_num_layers", draw(st.integers(0, depth)), 0)
    if not case.mtp:
        _given(draw, case, "transformer_impl", draw(st.sampled_from(["local", "transformer_engine"])), "local")
    if model_type in WITH_LATENT_ATTENTION:
        _given(draw, case, "mla_mm_split", draw(st.booleans()), False)
    case.dtype = draw(st.sampled_from([None, None, "bf16", "fp32"]))
    case.back_dtype = draw(st.sampled_from([None, None, None, "bf16", "fp32"]))
    case.source_dtype = draw(st.sampled_from(["BF16", "BF16", "F32"]))
    case.has_repeated = draw(st.booleans())
    case.shards = draw(st.integers(1, 3))
    case.ending = draw(st.sampled_from(["safetensors", "safetensors", "bin"]))
    return case


def _given(draw: st.DrawFn, case: Case, name: str, value: Any, default: Any) -> None:
    """Give an option; one with the value of its default may also be left out."""
    if value != default or draw(st.booleans()):
        case.options[name] = value


def _stages(draw: st.DrawFn) -> dict[str, Any]:
    """How layers go to stages: `slots` counts them all."""
    pp = draw(st.sampled_from([1, 2, 2, 3, 4]))
    options: dict[str, Any] = {"target_pipeline_parallel_size": pp}
    way = draw(st.sampled_from(["even", "list", "dualpipev", *(["virtual"] if pp > 1 else [])]))
    if way == "list":
        counts = draw(st.lists(st.integers(0, 3), min_size=pp, max_size=pp).filter(any))
        return options | {"num_layer_list": tuple(counts), "slots": sum(counts)}
    if way == "even":
        slots = pp * draw(st.integers(1, 3))
    elif way == "virtual":
        options["num_layers_per_virtual_pipeline_stage"] = each = draw(st.integers(1, 2))
        slots = pp * each * draw(st.integers(1, 3 if pp < 3 else 2))
    else:
        options["schedules_method"] = "dualpipev"
        slots = pp * 2 * draw(st.integers(1, 2 if pp < 3 else 1))
    noop = draw(st.lists(st.integers(0, slots - 1), unique=True, max_size=slots - 1))
    if noop and draw(st.booleans()):
        options["noop_layers"] = tuple(noop)
    return options | {"slots": slots}


def _experts(draw: st.DrawFn, case: Case, tp: int) -> tuple[int, int]:
    """Options of expert parallelism; returns how many experts there are and their FFN size."""
    if case.model_type not in WITH_EXPERTS:
        return 0, 0
    way = draw(st.sampled_from(["cut", "cut", "whole", "extended"]))
    parallel = [1, 2, 3, 4]
    if way == "whole":
        case.options["expert_tensor_parallel_size"] = 1
        parallel = [ep for ep in parallel if tp % ep == 0 or ep % tp == 0]
    elif way == "extended":
        case.options["moe_tp_extend_ep"] = True
    else:
        _given(draw, case, "expert_tensor_parallel_size", tp, tp)
    ep = draw(st.sampled_from(parallel))
    _given(draw, case, "target_expert_parallel_size", ep, 1)
    _given(draw, case, "moe_grouped_gemm", draw(st.booleans()), False)
    buckets = ep * tp if way == "extended" else ep
    experts = buckets * draw(st.integers(1, max(1, 8 // buckets)))
    return experts, draw(st.integers(1, 3)) * tp  # the shared experts are cut in any case


def _config(draw: st.DrawFn, case: Case, tp: int, kept: int) -> None:
    """The configuration, with more layers than are kept where `--num-layers` is drawn."""
    c, model_type = case.config, case.model_type
    heads = groups = tp * draw(st.integers(1, 2))
    c |= {
        "model_type": CONFIG_TYPES[model_type],
        "intermediate_size": tp * draw(st.integers(2, 7)),
        "tie_word_embeddings": draw(st.booleans()),
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
    }
    c |= draw(st.sampled_from([{"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}}]))
    multiple = draw(st.sampled_from([None, None, 1, 5]))
    if multiple is not None:
        case.options["make_vocab_size_divisible_by"] = multiple
    c["vocab_size"] = draw(st.integers(9, 31)) if multiple else tp * draw(st.integers(5, 13))
    c["hidden_size"] = hidden = draw(st.sampled_from([n for n in range(12, 25) if n % tp == 0]))
    if model_type in WITH_LATENT_ATTENTION:
        c |= {
            "q_lora_rank": None if model_type == "deepseek2-lite" else draw(st.integers(3, 7)),
            "kv_lora_rank": draw(st.integers(3, 7)),
            "qk_nope_head_dim": draw(st.integers(1, 4)),
            "qk_rope_head_dim": draw(st.integers(1, 3)),
            "v_head_dim": draw(st.integers(1, 5)),
            "n_shared_experts": draw(st.integers(1, 3)),
            "moe_layer_freq": draw(st.sampled_from([1, 1, 1, 2])),
            "num_key_value_heads": groups,
        }
        if model_type == "deepseek32":
            c |= {"index_head_dim": draw(st.integers(2, 5)), "index_n_heads": draw(st.integers(1, 4)), "index_topk": 4}
    else:
        heads = groups * draw(st.integers(1, 3))
        if hidden % heads or draw(st.booleans()):
            c["head_dim"] = draw(st.integers(1, 4))
        if heads != groups or draw(st.booleans()):
            c["num_key_value_heads"] = groups
    c["num_attention_heads"] = heads
    _layers(draw, case, kept)


def _layers(draw: st.DrawFn, case: Case, kept: int) -> None:
    """Dense and MoE layers, and the options of reduced layers."""
    c, model_type = case.config, case.model_type
    is_reduced = draw(st.sampled_from([False, False, True]))
    more = draw(st.integers(0, 3)) if is_reduced else 0
    if is_reduced:
        case.options["num_layers"] = kept
    c["num_hidden_layers"] = count = kept + more
    if model_type == "qwen3-moe":
        c["decoder_sparse_step"] = draw(st.integers(1, 2))
        c["mlp_only_layers"] = draw(st.lists(st.integers(0, count - 1), unique=True, max_size=2))
    elif model_type in WITH_LATENT_ATTENTION:
        c["first_k_dense_replace"] = dense = draw(st.integers(0, count))
        if is_reduced and c["moe_layer_freq"] == 1 and draw(st.booleans()):
            # f leading layers and what follows the last dense one must be enough
            case.options["first_k_dense_replace"] = draw(st.integers(max(0, dense - more), dense))
