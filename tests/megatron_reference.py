"""The real megatron-core GPTModel on a CPU, as the judge of converted checkpoints.

Needs megatron-core 0.14 or 0.16 and nothing that comes with a GPU (Apex, Transformer Engine, grouped_gemm).
The model is NVIDIA's, the 'local' layer spec included; `stand_in_for_cuda` lists the few things
that this module puts in the place of what only a GPU has. Each stands for a device, a random state
or a kernel, none for a layout: which row of which weight means what is megatron-core's say alone.

Used by `megatron_worker.py`, in processes of their own, since the stand-ins hold for a whole process.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_decoder_block_spec,
    get_gpt_layer_local_spec,
    get_gpt_mtp_block_spec,
)
from megatron.core.tensor_parallel.random import CudaRNGStatesTracker
from megatron.core.transformer.moe import grouped_gemm_util, moe_utils
from megatron.core.transformer.moe.experts import GroupedMLP
from megatron.core.transformer.transformer_config import TransformerConfig

_ACTIVATIONS = {"silu": torch.nn.functional.silu, "gelu_pytorch_tanh": torch.nn.functional.gelu}
"""`hidden_act` -> what megatron-core is told; its gelu is tanh's where it is fused with its bias."""
_OWN = (
    *("moe_layer_freq", "moe_shared_expert_intermediate_size", "add_qkv_bias", "moe_router_score_function"),
    *("moe_router_enable_expert_bias", "moe_router_topk_scaling_factor", "mtp_num_layers"),
    *("normalization", "gated_linear_unit", "add_bias_linear"),
)
"""What a model may say in megatron-core's own words."""


@dataclass(frozen=True, slots=True)
class ParallelSizes:
    """How a model is divided; the world has as many processes as both products need."""

    tensor: int
    pipeline: int
    expert: int
    expert_tensor: int


def grouped_matmul(
    tokens: torch.Tensor,
    weights: torch.Tensor,
    tokens_per_expert: torch.Tensor,
    trans_b: bool = False,
) -> torch.Tensor:
    """Multiply each expert's run of tokens by that expert's weight, as `grouped_gemm.ops.gmm` does.

    Args:
        tokens: [tokens, in], sorted by expert.
        weights: [experts, in, out], or [experts, out, in] with `trans_b`.
        tokens_per_expert: [experts], the lengths of the runs.
        trans_b: Whether the weights are transposed.

    Returns:
        [tokens, out].
    """
    runs = tokens.split(tokens_per_expert.tolist())
    matrices = weights.transpose(1, 2) if trans_b else weights
    return torch.cat([run @ matrix for run, matrix in zip(runs, matrices, strict=True)])


def stand_in_for_cuda() -> None:
    """Replace what megatron-core 0.16.1 takes from a GPU, in this process, for good."""
    # Buffers, gathered tensors, rotary frequencies and router weights go to "the current device".
    torch.cuda.current_device = lambda: torch.device("cpu")
    # Copies to the memory that is saved from are waited for.
    torch.cuda.synchronize = lambda *_arguments: None
    torch.Tensor.cuda = lambda tensor, *_args, **_words: tensor
    # Dropout (none here) runs under a forked CUDA random state.
    CudaRNGStatesTracker.fork = lambda _tracker, _name="": contextlib.nullcontext()
    # Transformer Engine's GEMM for the router. It is compared with None before torch.mm is taken,
    # but in 0.16.1 a failed import leaves the name unbound.
    moe_utils.te_general_gemm = getattr(moe_utils, "te_general_gemm", None)
    # The grouped_gemm package builds for CUDA only.
    grouped_gemm_util.assert_grouped_gemm_is_available = lambda: None
    grouped_gemm_util.ops = SimpleNamespace(gmm=grouped_matmul)


def start_model_parallel(sizes: ParallelSizes) -> None:
    """Divide the running process group."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=sizes.tensor,
        pipeline_model_parallel_size=sizes.pipeline,
        expert_model_parallel_size=sizes.expert,
        expert_tensor_parallel_size=sizes.expert_tensor,
        create_gloo_process_groups=False,
    )


def shard_folder(sizes: ParallelSizes) -> str:
    """Name the folder that this rank reads, as Megatron-LM's `get_checkpoint_name` does."""
    folder = f"mp_rank_{parallel_state.get_tensor_model_parallel_rank():02d}"
    if sizes.pipeline > 1:
        folder += f"_{parallel_state.get_pipeline_model_parallel_rank():03d}"
    if sizes.expert > 1:
        folder += f"_{parallel_state.get_expert_model_parallel_rank():03d}"
    return folder


def transformer_config(
    hf: dict[str, Any], qk_layernorm: bool, sizes: ParallelSizes, grouped: bool
) -> TransformerConfig:
    """Describe a Llama-like model to megatron-core.

    Args:
        hf: The sizes under their `config.json` names; without `num_experts` the layers are dense.
        qk_layernorm: Whether each head's query and key are normalised.
        sizes: The division.
        grouped: Whether the experts of a layer are one pair of tensors (GroupedMLP).
    """
    moe: dict[str, Any] = {}
    if "num_experts" in hf:
        moe = {
            "num_moe_experts": hf["num_experts"],
            "moe_ffn_hidden_size": hf["moe_intermediate_size"],
            "moe_router_topk": hf["num_experts_per_tok"],
            "moe_router_load_balancing_type": "none",
            "moe_token_dispatcher_type": "allgather",
            "moe_grouped_gemm": grouped,
            "expert_model_parallel_size": sizes.expert,
            "expert_tensor_parallel_size": sizes.expert_tensor,
        }
    usual = {"normalization": "RMSNorm", "gated_linear_unit": True, "add_bias_linear": False}
    own = usual | {name: hf[name] for name in _OWN if name in hf}
    activation = hf.get("hidden_act", "silu")
    return TransformerConfig(
        num_layers=hf["num_hidden_layers"],
        hidden_size=hf["hidden_size"],
        ffn_hidden_size=hf["intermediate_size"],
        num_attention_heads=hf["num_attention_heads"],
        num_query_groups=hf["num_key_value_heads"],
        kv_channels=hf.get("head_dim"),
        layernorm_epsilon=hf["rms_norm_eps"],
        qk_layernorm=qk_layernorm,
        mtp_loss_scaling_factor=0.1,  # 0.14 has no default
        activation_func=_ACTIVATIONS[activation],
        bias_activation_fusion=activation == "gelu_pytorch_tanh",
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cpu_initialization=True,
        perform_initialization=False,
        params_dtype=torch.float32,
        pipeline_dtype=torch.float32,
        tensor_model_parallel_size=sizes.tensor,
        pipeline_model_parallel_size=sizes.pipeline,
        **moe,
        **own,
    )


def recorded_args(hf: dict[str, Any], qk_layernorm: bool, sizes: ParallelSizes, grouped: bool) -> dict[str, Any]:
    """What Megatron-LM's training records of a model, as far as it concerns the weights."""
    groups = hf["num_key_value_heads"]
    return {
        "num_layers": hf["num_hidden_layers"],
        "hidden_size": hf["hidden_size"],
        "ffn_hidden_size": hf["intermediate_size"],
        "num_attention_heads": hf["num_attention_heads"],
        "group_query_attention": groups != hf["num_attention_heads"],
        "num_query_groups": groups,
        "kv_channels": hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
        "padded_vocab_size": hf["vocab_size"],
        "make_vocab_size_divisible_by": 1,
        "untie_embeddings_and_output_weights": True,
        "normalization": hf.get("normalization", "RMSNorm"),
        "norm_epsilon": hf["rms_norm_eps"],
        "position_embedding_type": "rope",
        "rotary_base": int(hf["rope_theta"]),
        "swiglu": hf.get("gated_linear_unit", True),
        "add_bias_linear": hf.get("add_bias_linear", False),
        "add_qkv_bias": hf.get("add_qkv_bias", False),
        "qk_layernorm": qk_layernorm,
        "seq_length": hf["max_position_embeddings"],
        "max_position_embeddings": hf["max_position_embeddings"],
        "num_experts": hf.get("num_experts"),
        "moe_ffn_hidden_size": hf.get("moe_intermediate_size"),
        "moe_layer_freq": hf.get("moe_layer_freq", 1),
        "moe_shared_expert_intermediate_size": hf.get("moe_shared_expert_intermediate_size"),
        "moe_grouped_gemm": grouped,
        "mtp_num_layers": hf.get("mtp_num_layers"),
        "transformer_impl": "local",
        "tensor_model_parallel_size": sizes.tensor,
        "pipeline_model_parallel_size": sizes.pipeline,
        "virtual_pipeline_model_parallel_size": None,
        "expert_model_parallel_size": sizes.expert,
        "expert_tensor_parallel_size": sizes.expert_tensor,
        "use_distributed_optimizer": True,
        "consumed_train_samples": 7 * 16,
        "decoder_first_pipeline_num_layers": None,
        "pipeline_model_parallel_layout": None,
    }


def build_model(hf: dict[str, Any], qk_layernorm: bool, sizes: ParallelSizes, grouped: bool) -> GPTModel:
    """Build this rank's part of the model, weights not initialised, in eval mode."""
    config = transformer_config(hf, qk_layernorm, sizes, grouped)
    if isinstance(config.moe_layer_freq, list):
        spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization=config.normalization)
    else:
        spec = get_gpt_layer_local_spec(
            num_experts=config.num_moe_experts,
            moe_grouped_gemm=grouped,
            qk_layernorm=qk_layernorm,
            normalization=config.normalization,
        )
    mtp = None
    if config.mtp_num_layers and parallel_state.is_pipeline_last_stage():
        mtp = get_gpt_mtp_block_spec(config, spec, use_transformer_engine=False)
    model = GPTModel(
        config,
        spec,
        vocab_size=hf["vocab_size"],
        max_sequence_length=hf["max_position_embeddings"],
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        parallel_output=False,  # the output layer gathers the vocabulary from all TP ranks
        share_embeddings_and_output_weights=False,
        position_embedding_type="rope",
        rotary_base=hf["rope_theta"],
        rotary_percent=hf.get("partial_rotary_factor", 1.0),
        mtp_block_spec=mtp,
    )
    for module in model.modules():
        if isinstance(module, GroupedMLP):
            # forward() asserts the flag since the CUDA kernel takes nothing but bf16;
            # grouped_matmul takes float32. Nothing else in GroupedMLP reads it.
            module.config = copy.copy(module.config)
            module.config.bf16 = True
    return model.eval()


def weights(model: GPTModel) -> dict[str, torch.Tensor]:
    """Return the module's state dict without `_extra_state`, which holds no weight."""
    return {key: value for key, value in model.state_dict().items() if "_extra_state" not in key}


@torch.no_grad()
def logits(model: GPTModel, token_ids: torch.Tensor) -> torch.Tensor | None:
    """Run a forward pass over all pipeline stages.

    Args:
        model: This rank's part.
        token_ids: [batch, sequence].

    Returns:
        [batch, sequence, vocab] on the ranks of the last stage, None on the others.
    """
    batch, length = token_ids.shape
    if not model.pre_process:
        hidden = torch.empty(length, batch, model.config.hidden_size)
        dist.recv(hidden, parallel_state.get_pipeline_model_parallel_prev_rank())
        model.set_input_tensor(hidden)
    positions = torch.arange(length).expand(batch, length)
    # Left to megatron-core the causal mask is made on "cuda". True is what must not be seen.
    future = torch.ones(1, 1, length, length, dtype=torch.bool).triu(diagonal=1)
    if model.post_process:
        found: list[torch.Tensor] = []
        hook = model.output_layer.register_forward_hook(lambda _module, _inputs, made: found.append(made[0].clone()))
        # with MTP layers a model wants labels, and gives a loss; the last logits are the main ones
        model(token_ids, positions, attention_mask=future, labels=token_ids if model.config.mtp_num_layers else None)
        hook.remove()
        return found[-1].transpose(0, 1).contiguous()
    output = model(token_ids, positions, attention_mask=future)
    dist.send(output, parallel_state.get_pipeline_model_parallel_next_rank())
    return None
