"""What the training script is told under `--dialect megatron` builds the model: megatron-core itself is asked.

Its configuration is built from the flags, and its router chooses and weighs experts as the model's own class does.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import transformers
from megatron.core.models.common.embeddings.yarn_rotary_pos_embedding import YarnRotaryEmbedding, _yarn_get_mscale
from megatron.core.transformer.moe.moe_utils import topk_routing_with_score_function
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

from biased_plugin import installed
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.testing import Options, load_registry, save_huggingface, source_tensors
from small_configurations import DEEPSEEK, LLAMA, MIXTURE, QWEN
from training_arguments import config_of, parsed

pytestmark = pytest.mark.xdist_group("training-flags")

EXPERTS = {"num_experts_per_tok": 4, "num_experts": 8, "n_routed_experts": 8}
SHARED = {"shared_expert_intermediate_size": 10, "qkv_bias": True}
QWEN2 = {**MIXTURE, **EXPERTS, **SHARED, "model_type": "qwen2_moe", "head_dim": None}
V3 = {**DEEPSEEK, **EXPERTS, "routed_scaling_factor": 2.5, "n_group": 4, "topk_group": 2, "norm_topk_prob": True}
V2 = {**V3, "model_type": "deepseek_v2", "norm_topk_prob": False, "scoring_func": "softmax", "num_experts_per_tok": 2}
V2["num_nextn_predict_layers"] = 0
GREEDY = {"topk_method": "greedy", "n_group": 1, "topk_group": 1, "q_lora_rank": None, "num_experts_per_tok": 4}
GLM = {**QWEN, **EXPERTS, "model_type": "glm4_moe", "routed_scaling_factor": 1.5, "norm_topk_prob": True}
GLM |= {"n_shared_experts": 1, "moe_intermediate_size": 6, "first_k_dense_replace": 1, "num_nextn_predict_layers": 0}
BAILING = {**GLM, "model_type": "bailing_moe", "num_shared_experts": 1, "n_group": 4, "topk_group": 2}
HUNYUAN = {**GLM, "model_type": "hy_v3", "router_scaling_factor": 2.5, "num_shared_experts": 1, "route_norm": True}
HUNYUAN["routed_scaling_factor"] = None
YARN = {"type": "yarn", "rope_type": "yarn", "factor": 40.0, "beta_fast": 32, "beta_slow": 1}
YARN |= {"mscale": 1.0, "mscale_all_dim": 0.8, "original_max_position_embeddings": 4096}
CONFIGS = {
    "llama2": LLAMA,
    "qwen25": {**QWEN, "model_type": "qwen2", "head_dim": None},
    "qwen3": QWEN,
    "qwen3-moe": {**MIXTURE, **EXPERTS, "norm_topk_prob": True, "mlp_only_layers": [1]},
    "qwen2-moe": {**QWEN2, "norm_topk_prob": False},
    "qwen2-moe, normalised": {**QWEN2, "norm_topk_prob": True, "shared_expert_intermediate_size": 12},
    "mixtral": {**QWEN, **EXPERTS, "model_type": "mixtral", "num_local_experts": 8},
    "deepseek3": V3,
    "deepseek3, one group": {**V3, "n_group": 1, "topk_group": 1},
    "deepseek3, yarn": {**V3, "qk_rope_head_dim": 16, "rope_scaling": YARN},
    "deepseek2": {**V2, "topk_method": "group_limited_greedy"},
    "deepseek2-lite": {**V2, **GREEDY},
    "glm45": {**GLM, "first_k_dense_replace": 2, "n_group": 4, "topk_group": 2},
    "glm45-air": {**GLM, "n_group": 1, "topk_group": 1, "attention_bias": True, "use_qk_norm": True},
    "bailing_mini": BAILING,
    "HYV3": HUNYUAN,
    "seed-oss": {**QWEN, "model_type": "seed_oss", "attention_bias": False, "attention_out_bias": False},
    "phi3.5": {**QWEN, "model_type": "phi3"},
    "magistral": {**QWEN, "model_type": "mistral"},
    "plm": {**DEEPSEEK, "model_type": "plm", "tie_word_embeddings": True},
    "starcoder2": {**QWEN, "model_type": "starcoder2", "head_dim": None, "use_bias": True},
    "smollm3": {**QWEN, "model_type": "smollm3", "attention_bias": True, "mlp_bias": True},
}
"""Model type, and how it differs from another of its type -> a small configuration."""
ROUTERS = {
    "qwen3-moe": ("qwen3_moe", "Qwen3Moe"),
    "qwen2-moe": ("qwen2_moe", "Qwen2Moe"),
    "qwen2-moe, normalised": ("qwen2_moe", "Qwen2Moe"),
    "mixtral": ("mixtral", "Mixtral"),
    "deepseek3": ("deepseek_v3", "DeepseekV3"),
    "deepseek3, one group": ("deepseek_v3", "DeepseekV3"),
    "deepseek2": ("deepseek_v2", "DeepseekV2"),
    "deepseek2-lite": ("deepseek_v2", "DeepseekV2"),
    "glm45": ("glm4_moe", "Glm4Moe"),
    "glm45-air": ("glm4_moe", "Glm4Moe"),
    "HYV3": ("hy_v3", "HYV3"),
}
"""The transformers module and the prefix of its classes, where it has one."""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is told of each model."""
    folder, flags = tmp_path_factory.mktemp("hf"), {}
    with installed(tmp_path_factory.mktemp("plugin")):
        registry = load_registry()
    for number, (name, config) in enumerate(CONFIGS.items()):
        source, family = folder / str(number), registry.family(name.partition(",")[0])
        save_huggingface(source, config, source_tensors(family, config))
        request = Request(
            source, Options(dialect="megatron", megatron_core_version="0.16.1"), model_type=family.model_type.name
        )
        flags[name] = prepare_to_megatron(request, registry).training_flags
    return flags


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_is_built_from_what_is_told(name, told):
    config, built = CONFIGS[name], config_of(told[name])
    assert (built.num_layers, built.hidden_size) == (config["num_hidden_layers"], config["hidden_size"])
    assert built.num_moe_experts == (config["num_experts"] if "num_experts_per_tok" in config else None)
    assert built.moe_router_topk == config.get("num_experts_per_tok", 2)


@pytest.mark.parametrize("name", ROUTERS)
def test_megatron_routes_as_the_models_own_class_does(name, told):
    module, prefix = ROUTERS[name]
    config = getattr(transformers, f"{prefix}Config")(**CONFIGS[name])
    classes = vars(importlib.import_module(f"transformers.models.{module}.modeling_{module}"))
    router = next(classes[f"{prefix}{kind}"] for kind in ("TopkRouter", "TopKRouter") if f"{prefix}{kind}" in classes)(
        config
    )
    generator = torch.Generator().manual_seed(7)
    torch.nn.init.normal_(router.weight, generator=generator)
    tokens = torch.randn(64, config.hidden_size, generator=generator)
    bias = torch.randn(8, generator=generator) / 4 if "enable-expert-bias" in told[name] else None
    if hasattr(router, "e_score_correction_bias"):
        router.e_score_correction_bias.copy_(bias)
    with torch.no_grad():
        logits, weights, chosen = router(tokens, bias) if name == "HYV3" else router(tokens)
    built = config_of(told[name])
    probabilities, routing = topk_routing_with_score_function(
        logits.float(),
        built.moe_router_topk,
        built.moe_router_pre_softmax,
        built.moe_router_num_groups,
        built.moe_router_group_topk,
        built.moe_router_topk_scaling_factor,
        built.moe_router_score_function,
        bias,
    )
    expected = torch.zeros_like(probabilities).scatter(1, chosen, weights.float())
    assert torch.equal(routing, expected != 0)
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_projections_have_biases_and_mlps_a_gate_where_the_model_has(name, told):
    built, is_biased = config_of(told[name]), name in ("starcoder2", "smollm3")
    assert (built.add_bias_linear, built.gated_linear_unit) == (is_biased, name not in ("starcoder2", "plm"))
    assert built.normalization == ("LayerNorm" if name == "starcoder2" else "RMSNorm")


@pytest.mark.parametrize("name", ["deepseek3, yarn", "deepseek3"])
def test_megatron_rotates_as_the_models_own_class_does(name, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    config, built = DeepseekV3Config(**CONFIGS[name], attn_implementation="eager"), config_of(told[name])
    theirs, attention = DeepseekV3RotaryEmbedding(config), DeepseekV3Attention(config, 0)
    ours = YarnRotaryEmbedding(
        built.qk_pos_emb_head_dim,
        rotary_base=built.rotary_base,
        use_cpu_initialization=True,
        scaling_factor=built.rotary_scaling_factor,
        original_max_position_embeddings=built.original_max_position_embeddings,
        beta_fast=built.beta_fast,
        beta_slow=built.beta_slow,
        mscale=built.mscale,
        mscale_all_dim=built.mscale_all_dim,
    )
    angles, scale = ours.get_emb(2)
    torch.testing.assert_close(angles[1, 0, 0, : built.qk_pos_emb_head_dim // 2], theirs.inv_freq)
    assert scale == pytest.approx(theirs.attention_scaling)
    width = built.qk_head_dim + built.qk_pos_emb_head_dim
    assert attention.scaling == pytest.approx(
        _yarn_get_mscale(built.rotary_scaling_factor, built.mscale_all_dim) ** 2 / width**0.5
    )


def test_shared_expert_of_qwen2_is_as_wide_as_it_is(told):
    built = config_of(told["qwen2-moe"])
    assert (built.moe_shared_expert_intermediate_size, built.moe_shared_expert_gate) == (10, True)


def test_option_that_megatron_has_not_is_found_out():
    for command in ("--first-k-dense-replace 1", "--spec a b --longrope-freqs-type outer", "--swiglu --swiglu"):
        with pytest.raises(AssertionError):
            parsed(command)
