"""The models and divisions that are judged by megatron-core: tiny ones of transformers' own classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

VOCABULARY = 92
OLDER = "0.14"
"""The megatron-core that judges some of the cases besides the newest one."""


@dataclass(frozen=True, slots=True)
class Family:
    """A model type and a tiny model of it."""

    model_type_hf: str
    architecture: str
    """Prefix of the transformers classes, as in `LlamaConfig` and `LlamaForCausalLM`."""
    qk_layernorm: bool
    config: dict[str, Any]
    """What transformers and megatron-core are told, under the names of config.json."""
    megatron: dict[str, Any] = field(default_factory=dict)
    """What megatron-core is told besides or instead, under the same names or those of its `TransformerConfig`."""
    mtp: int = 0
    """MTP layers, which transformers' class does not have; their weights are beside the others."""


# Sizes differ from each other, so that a transposed or mixed-up tensor doesn't fit; 12 heads in 4
# groups leave each of two tensor parallel ranks two groups, so that their order can be wrong.
SHARED = {
    "vocab_size": VOCABULARY,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "intermediate_size": 100,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
}
QWEN3 = {**SHARED, "hidden_size": 56, "head_dim": 10}
MOE = {
    "moe_intermediate_size": 20,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
FAMILIES = {
    "llama": Family("llama2", "Llama", False, {**SHARED, "hidden_size": 72, "num_hidden_layers": 2}),
    "qwen3": Family("qwen3", "Qwen3", True, {**QWEN3, "num_hidden_layers": 4}),
    "starcoder2": Family(
        "starcoder2",
        "Starcoder2",
        False,
        {**SHARED, "hidden_size": 72, "num_hidden_layers": 2, "hidden_act": "gelu_pytorch_tanh"},
        {"normalization": "LayerNorm", "gated_linear_unit": False, "add_bias_linear": True},
    ),
    "smollm3": Family(
        "smollm3",
        "SmolLM3",
        False,
        {
            **{**SHARED, "hidden_size": 72, "num_hidden_layers": 2, "attention_bias": True, "mlp_bias": True},
            **{"no_rope_layers": [1, 1], "pad_token_id": 0},
        },
        {"add_bias_linear": True},
    ),
    "qwen3-moe": Family("qwen3-moe", "Qwen3Moe", True, {**QWEN3, **MOE, "num_hidden_layers": 2}),
    "mixtral": Family(
        "mixtral",
        "Mixtral",
        False,
        {**QWEN3, "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 20, "num_hidden_layers": 2},
        {"num_experts": 6, "moe_intermediate_size": 20},
    ),
    "mtp": Family(
        "glm45-air",
        "Glm4Moe",
        True,
        {
            **{**QWEN3, **MOE, "num_hidden_layers": 2},
            **{"n_routed_experts": 6, "n_shared_experts": 1, "first_k_dense_replace": 1, "use_qk_norm": True},
            **{"num_nextn_predict_layers": 1, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.5},
            **{"partial_rotary_factor": 0.5, "attention_bias": True, "head_dim": 12},
        },
        {
            **{"moe_layer_freq": [0, 1], "moe_shared_expert_intermediate_size": 20, "add_qkv_bias": True},
            **{"moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True},
            **{"moe_router_topk_scaling_factor": 1.5, "mtp_num_layers": 1},
        },
        mtp=1,
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One conversion."""

    family: str
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    expert_tensor: int | None = None
    """None: not on the command line, and the tensor parallel size for megatron-core."""
    grouped: bool = False
    dialect: str = "mindspeed"
    is_distributed: bool = False
    """Whether the checkpoint is of global tensors, which the division says nothing of."""
    core: str = "0.16"
    """The megatron-core that judges it."""

    @property
    def is_nvidias(self) -> bool:
        """Whether it is in the names of NVIDIA's own stack."""
        return self.dialect == "megatron"

    @property
    def iteration(self) -> str:
        """The folder that the tracker names."""
        return "release" if self.is_nvidias else "iter_0000001"

    @property
    def sizes(self) -> dict[str, int]:
        """Give the sizes the names of `megatron_reference.ParallelSizes`."""
        return {
            "tensor": self.tensor,
            "pipeline": self.pipeline,
            "expert": self.expert,
            "expert_tensor": self.expert_tensor or self.tensor,
        }

    @property
    def options(self) -> list[str]:
        """List the options of `mscvt hf2mg` that make this division."""
        mtp = [f"--mtp-num-layers={FAMILIES[self.family].mtp}"] if FAMILIES[self.family].mtp else []
        if self.is_distributed:
            return [f"--dialect={self.dialect}", "--ckpt-format=torch_dist", *mtp]
        options = [
            f"--target-tensor-parallel-size={self.tensor}",
            f"--target-pipeline-parallel-size={self.pipeline}",
        ]
        if self.expert > 1:
            options.append(f"--target-expert-parallel-size={self.expert}")
        if self.expert_tensor is not None:
            options.append(f"--expert-tensor-parallel-size={self.expert_tensor}")
        if self.grouped:
            options.append("--moe-grouped-gemm")
        if self.is_nvidias:
            options += [f"--dialect={self.dialect}", f"--megatron-core-version={self.core}"]
            options.append("--transformer-impl=local")
            options.append("--make-vocab-size-divisible-by=1")
        return options + mtp


CASES = {
    "llama-tp1": Case("llama"),
    "llama-tp2": Case("llama", tensor=2),
    "starcoder2-tp1": Case("starcoder2"),
    "starcoder2-tp2": Case("starcoder2", tensor=2),
    "smollm3-tp2": Case("smollm3", tensor=2),
    "qwen3-tp1": Case("qwen3"),
    "qwen3-tp2": Case("qwen3", tensor=2),
    "qwen3-pp2": Case("qwen3", pipeline=2),
    "moe-tp1": Case("qwen3-moe"),
    "moe-tp2": Case("qwen3-moe", tensor=2),
    "moe-ep2": Case("qwen3-moe", expert=2),
    "moe-grouped-tp1": Case("qwen3-moe", grouped=True),
    "moe-grouped-tp2": Case("qwen3-moe", tensor=2, grouped=True),
    "moe-grouped-tp2-ep2-etp1": Case("qwen3-moe", tensor=2, expert=2, expert_tensor=1, grouped=True),
    "nvidia-llama-tp1": Case("llama", dialect="megatron"),
    "nvidia-llama-tp2": Case("llama", tensor=2, dialect="megatron"),
    "nvidia-starcoder2-tp1": Case("starcoder2", dialect="megatron"),
    "nvidia-starcoder2-tp2": Case("starcoder2", tensor=2, dialect="megatron"),
    "nvidia-smollm3-tp1": Case("smollm3", dialect="megatron"),
    "nvidia-smollm3-tp2": Case("smollm3", tensor=2, dialect="megatron"),
    "nvidia-qwen3-tp1": Case("qwen3", dialect="megatron"),
    "nvidia-qwen3-tp2": Case("qwen3", tensor=2, dialect="megatron"),
    "nvidia-moe-tp1": Case("qwen3-moe", dialect="megatron"),
    "nvidia-moe-tp2": Case("qwen3-moe", tensor=2, dialect="megatron"),
    "nvidia-moe-tp2-ep2-etp1": Case("qwen3-moe", tensor=2, expert=2, expert_tensor=1, dialect="megatron"),
    "nvidia-moe-grouped-ep2": Case("qwen3-moe", expert=2, grouped=True, dialect="megatron"),
    "nvidia-mixtral-tp1": Case("mixtral", dialect="megatron"),
    "nvidia-mixtral-tp2": Case("mixtral", tensor=2, dialect="megatron"),
    "nvidia-mtp-tp1": Case("mtp", dialect="megatron"),
    "nvidia-mtp-tp2": Case("mtp", tensor=2, dialect="megatron"),
    "nvidia-mtp-pp2": Case("mtp", pipeline=2, dialect="megatron"),
    "older-starcoder2-tp2": Case("starcoder2", tensor=2, dialect="megatron", core=OLDER),
    "older-qwen3-pp2": Case("qwen3", pipeline=2, dialect="megatron", core=OLDER),
    "older-moe-ep2": Case("qwen3-moe", expert=2, dialect="megatron", core=OLDER),
    "older-mixtral-grouped-tp2": Case("mixtral", tensor=2, grouped=True, dialect="megatron", core=OLDER),
    "older-mtp-tp2": Case("mtp", tensor=2, dialect="megatron", core=OLDER),
}
"""What two processes can hold."""
_DISTRIBUTED = {
    f"distributed-{family}-{name}": Case(family, **sizes, dialect="megatron", is_distributed=True)
    for family, divisions in {
        "llama": {"tp1": {}, "tp2": {"tensor": 2}, "pp2": {"pipeline": 2}},
        "starcoder2": {"tp1": {}, "tp2": {"tensor": 2}},
        "smollm3": {"tp2": {"tensor": 2}},
        "qwen3": {"tp2": {"tensor": 2}, "pp2": {"pipeline": 2}},
        "qwen3-moe": {"tp1": {}, "tp2": {"tensor": 2}, "ep2": {"expert": 2}},
        "mixtral": {"tp2-ep2-etp1": {"tensor": 2, "expert": 2, "expert_tensor": 1}, "pp2": {"pipeline": 2}},
        "mtp": {"tp2": {"tensor": 2}, "pp2": {"pipeline": 2}, "ep2": {"expert": 2}},
    }.items()
    for name, sizes in divisions.items()
}
_OLDER = ("llama-tp2", "qwen3-pp2", "qwen3-moe-ep2", "mixtral-pp2", "mtp-tp2")
DISTRIBUTED = _DISTRIBUTED | {
    f"older-distributed-{name}": replace(_DISTRIBUTED[f"distributed-{name}"], core=OLDER) for name in _OLDER
}
"""Divisions that one distributed checkpoint of each family loads into, and is saved from again."""
