"""What the training script must be told, so that it loads a converted checkpoint."""

from __future__ import annotations

from mscvt.dialects.mindspeed.options import Options
from mscvt.model.family import Hyperparameters
from mscvt.plugins.family import Family

_TRAINING_FLAGS = (
    ("target_tensor_parallel_size", "--tensor-model-parallel-size"),
    ("target_pipeline_parallel_size", "--pipeline-model-parallel-size"),
    ("target_expert_parallel_size", "--expert-model-parallel-size"),
    ("num_layers_per_virtual_pipeline_stage", "--num-layers-per-virtual-pipeline-stage"),
    ("num_layer_list", "--num-layer-list"),
    ("noop_layers", "--noop-layers"),
    ("moe_grouped_gemm", "--moe-grouped-gemm"),
    ("moe_tp_extend_ep", "--moe-tp-extend-ep"),
    ("mla_mm_split", "--mla-mm-split"),
    ("mtp_num_layers", "--mtp-num-layers"),
    ("schedules_method", "--schedules-method"),
    ("transformer_impl", "--transformer-impl"),
    ("first_k_dense_replace", "--first-k-dense-replace"),
)
"""Option -> what the training script calls it."""


def training_flags(family: Family, options: Options, h: Hyperparameters, layers: int) -> tuple[str, ...]:
    """What the training script must be told so that it loads the checkpoint, an option and its value each."""
    words = [f"--num-layers {layers + len(options.noop_layers or ())}"]
    for name, flag in _TRAINING_FLAGS:
        value = getattr(options, name)
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        if value is True:
            words.append(flag)
        elif value not in (None, False, "", 0):
            words.append(f"{flag} {value}")
    if options.expert_tensor_parallel_size != options.target_tensor_parallel_size:
        words.append(f"--expert-tensor-parallel-size {options.expert_tensor_parallel_size}")
    words.append(f"--padded-vocab-size {h['padded_vocab_size']}")
    words.append(f"--make-vocab-size-divisible-by {options.make_vocab_size_divisible_by or 1}")
    if not h.get("tie_word_embeddings"):
        words.append("--untie-embeddings-and-output-weights")
    return (*words, *family.flags(h))
