"""The models that are measured: real layer shapes, with fewer layers, experts and rows of vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

from mscvt.dialects.options import Options
from mscvt.model.options import rows

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A Hugging Face checkpoint in bf16, and how it is converted."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Shape]
    options: Options

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return 2 * sum(map(prod, self.tensors.values()))

    @property
    def flags(self) -> list[str]:
        """The options as `mscvt hf2mg` takes them."""
        found = []
        for row in rows(Options).values():
            value = getattr(self.options, row.name)
            if value is True:
                found.append(row.flag)
            elif value is not None:
                shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
                found.append(f"{row.flag}={shown}")
        return found


def split(tensor: int = 1, pipeline: int = 1, expert: int | None = None, **further: Any) -> Options:
    """Options for so many ranks."""
    return Options(
        target_tensor_parallel_size=tensor,
        target_pipeline_parallel_size=pipeline,
        target_expert_parallel_size=expert,
        moe_grouped_gemm=None if expert is None else True,
        **further,
    )


def gated(prefix: str, hidden: int, ffn: int) -> dict[str, Shape]:
    """A gated MLP."""
    return {
        f"{prefix}.gate_proj.weight": (ffn, hidden),
        f"{prefix}.up_proj.weight": (ffn, hidden),
        f"{prefix}.down_proj.weight": (hidden, ffn),
    }


def decoder(layers: Mapping[int, Mapping[str, Shape]], hidden: int, vocab: int) -> dict[str, Shape]:
    """A model from the tensors of its layers, whose names have no prefix yet."""
    tensors: dict[str, Shape] = {"model.embed_tokens.weight": (vocab, hidden)}
    for number, layer in layers.items():
        tensors |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return tensors | {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}


def experts(count: int, hidden: int, ffn: int) -> dict[str, Shape]:
    """A router and the experts behind it."""
    found: dict[str, Shape] = {"mlp.gate.weight": (count, hidden)}
    for expert in range(count):
        found |= gated(f"mlp.experts.{expert}", hidden, ffn)
    return found


def norms(hidden: int) -> dict[str, Shape]:
    """The two norms of every layer."""
    return {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}


def grouped_attention(hidden: int, heads: int, groups: int, channels: int) -> dict[str, Shape]:
    """Qwen3's attention: kv groups and a norm on each query and key head."""
    return {
        "self_attn.q_proj.weight": (heads * channels, hidden),
        "self_attn.k_proj.weight": (groups * channels, hidden),
        "self_attn.v_proj.weight": (groups * channels, hidden),
        "self_attn.o_proj.weight": (hidden, heads * channels),
        "self_attn.q_norm.weight": (channels,),
        "self_attn.k_norm.weight": (channels,),
    }


def qwen3_config(c: Mapping[str, int]) -> dict[str, Any]:
    """What the dense and the MoE configuration have in common."""
    return {
        "num_hidden_layers": c["layers"],
        "hidden_size": c["hidden"],
        "intermediate_size": c["ffn"],
        "num_attention_heads": c["heads"],
        "num_key_value_heads": c["groups"],
        "head_dim": c["channels"],
        "vocab_size": c["vocab"],
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def qwen3(options: Options, **c: int) -> Model:
    """A dense Qwen3 of the sizes `layers hidden ffn heads groups channels vocab`."""
    layer = {
        **norms(c["hidden"]),
        **grouped_attention(c["hidden"], c["heads"], c["groups"], c["channels"]),
        **gated("mlp", c["hidden"], c["ffn"]),
    }
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], **qwen3_config(c)}
    return Model(config, decoder(dict.fromkeys(range(c["layers"]), layer), c["hidden"], c["vocab"]), options)


def qwen3_moe(options: Options, **c: int) -> Model:
    """A Qwen3-MoE, whose sizes are those of `qwen3` and `experts moe`."""
    layer = {
        **norms(c["hidden"]),
        **grouped_attention(c["hidden"], c["heads"], c["groups"], c["channels"]),
        **experts(c["experts"], c["hidden"], c["moe"]),
    }
    config = {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        **qwen3_config(c),
        "num_experts": c["experts"],
        "num_experts_per_tok": 8,
        "moe_intermediate_size": c["moe"],
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }
    return Model(config, decoder(dict.fromkeys(range(c["layers"]), layer), c["hidden"], c["vocab"]), options)


def latent_attention(hidden: int, heads: int, c: Mapping[str, int]) -> dict[str, Shape]:
    """DeepSeek's attention, with queries of low rank too."""
    return {
        "self_attn.q_a_proj.weight": (c["q_rank"], hidden),
        "self_attn.q_a_layernorm.weight": (c["q_rank"],),
        "self_attn.q_b_proj.weight": (heads * (c["nope"] + c["rope"]), c["q_rank"]),
        "self_attn.kv_a_proj_with_mqa.weight": (c["kv_rank"] + c["rope"], hidden),
        "self_attn.kv_a_layernorm.weight": (c["kv_rank"],),
        "self_attn.kv_b_proj.weight": (heads * (c["nope"] + c["value"]), c["kv_rank"]),
        "self_attn.o_proj.weight": (hidden, heads * c["value"]),
    }


def deepseek_v3(options: Options, **c: int) -> Model:
    """A DeepSeek-V3 in bf16 with `layers`, of which `dense` have no experts, and `mtp` MTP layers after them."""
    hidden = c["hidden"]
    every = {**norms(hidden), **latent_attention(hidden, c["heads"], c)}
    dense = {**every, **gated("mlp", hidden, c["ffn"])}
    moe = {
        **every,
        **experts(c["experts"], hidden, c["moe"]),
        "mlp.gate.e_score_correction_bias": (c["experts"],),
        **gated("mlp.shared_experts", hidden, c["moe"]),
    }
    mtp = {
        "embed_tokens.weight": (c["vocab"], hidden),
        "enorm.weight": (hidden,),
        "hnorm.weight": (hidden,),
        "eh_proj.weight": (hidden, 2 * hidden),
        **moe,
        "shared_head.norm.weight": (hidden,),
        "shared_head.head.weight": (c["vocab"], hidden),
    }
    layers = {i: dense if i < c["dense"] else moe for i in range(c["layers"])}
    layers |= {c["layers"] + i: mtp for i in range(c["mtp"])}
    config = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "num_hidden_layers": c["layers"],
        "num_nextn_predict_layers": c["mtp"],
        "hidden_size": hidden,
        "intermediate_size": c["ffn"],
        "moe_intermediate_size": c["moe"],
        "num_attention_heads": c["heads"],
        "num_key_value_heads": c["heads"],
        "q_lora_rank": c["q_rank"],
        "kv_lora_rank": c["kv_rank"],
        "qk_nope_head_dim": c["nope"],
        "qk_rope_head_dim": c["rope"],
        "v_head_dim": c["value"],
        "n_routed_experts": c["experts"],
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": c["dense"],
        "moe_layer_freq": 1,
        "vocab_size": c["vocab"],
        "max_position_embeddings": 163840,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    return Model(config, decoder(layers, hidden, c["vocab"]), options)


_V3 = {
    "hidden": 7168,
    "ffn": 18432,
    "moe": 2048,
    "heads": 128,
    "q_rank": 1536,
    "kv_rank": 512,
    "nope": 128,
    "rope": 64,
    "value": 128,
}
_QWEN3_MOE = {"hidden": 2048, "ffn": 6144, "moe": 768, "heads": 32, "groups": 4, "channels": 128}
_TINY = {"hidden": 64, "ffn": 96, "moe": 32, "heads": 4, "groups": 2, "channels": 24, "vocab": 128, "experts": 4}
_TINY_TENSORS = {"hidden": 16, "ffn": 32, "moe": 8, "heads": 4, "groups": 2, "channels": 4, "vocab": 64, "experts": 80}
"""Of which 40 layers have 10,000 tensors."""
_TINY_V3 = {**_TINY, "q_rank": 40, "kv_rank": 24, "nope": 16, "rope": 8, "value": 16}

SPEED: Mapping[str, Callable[[int], Model]] = MappingProxyType(
    {
        "qwen3-30b-a3b": lambda scale: qwen3_moe(
            split(2, 2, 4), layers=2 * scale, experts=64, vocab=14336, **_QWEN3_MOE
        ),
        "qwen3-8b": lambda scale: qwen3(
            split(2, 3), layers=3 * scale, hidden=4096, ffn=12288, heads=32, groups=8, channels=128, vocab=8192
        ),
        "qwen3-8b-disk": lambda scale: qwen3(
            split(2, 2), layers=4 * scale, hidden=4096, ffn=12288, heads=32, groups=8, channels=128, vocab=22528
        ),
        "deepseek-v3": lambda scale: deepseek_v3(
            split(2, 1, 2), layers=scale, dense=0, mtp=0, experts=8, vocab=4096, **_V3
        ),
        "tiny-tensors": lambda scale: qwen3_moe(split(), layers=40 * scale, **_TINY_TENSORS),
        "tiny": lambda scale: qwen3_moe(split(2, 2, 2), layers=2 * scale, **_TINY),
    }
)
"""Models with weights, by name, at `scale` times their layers; source and result have 1 to 2 GB each unless tiny."""

PLANNING: Mapping[str, Callable[[], Model]] = MappingProxyType(
    {
        "deepseek-v3": lambda: deepseek_v3(
            split(2, 8, 32, num_layer_list=(7, 7, 8, 8, 8, 8, 8, 7), mtp_num_layers=1),
            layers=61,
            dense=3,
            mtp=1,
            experts=256,
            vocab=129280,
            **_V3,
        ),
        "qwen3-235b": lambda: qwen3_moe(
            split(1, 4, 32, num_layers_per_virtual_pipeline_stage=8, noop_layers=(94, 95)),
            layers=94,
            hidden=4096,
            ffn=12288,
            moe=1536,
            heads=64,
            groups=4,
            channels=128,
            experts=128,
            vocab=151936,
        ),
        "tiny": lambda: deepseek_v3(
            split(2, 2, 2, num_layer_list=(2, 1), mtp_num_layers=1),
            layers=3,
            dense=1,
            mtp=1,
            **{name: size for name, size in _TINY_V3.items() if name not in ("groups", "channels")},
        ),
    }
)
"""Models of which only the headers exist, at their full size."""
