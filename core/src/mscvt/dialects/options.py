"""The training stacks' options: what decides how a Megatron checkpoint looks, and which dialects have what."""

from __future__ import annotations

from mscvt.model.options import option
from mscvt.records import dataclass

_SPLIT = "Parallel layout"
_TENSORS = "Tensors"
_LAYERS = "Layers"
_SIZES = "Sizes that config.json lacks"
_SAID = "what config.json says"

MINDSPEED, MEGATRON = "mindspeed", "megatron"
"""The dialects."""
TORCH, TORCH_DIST = "torch", "torch_dist"
"""The formats of checkpoints."""
VERSIONS = tuple(f"0.{minor}" for minor in range(10, 20))
"""The versions of megatron-core whose names are known, oldest first."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; None means that nothing was, so that a recorded value or the default holds."""

    dialect: str | None = option(
        panel=_SPLIT,
        metavar="DIALECT",
        help="Whose names, layouts and options: MindSpeed-LLM's or those of NVIDIA's Megatron-LM.",
        default=MINDSPEED,
        choices=(MINDSPEED, MEGATRON),
    )
    target_tensor_parallel_size: int | None = option(
        panel=_SPLIT,
        metavar="N",
        help="TP: rows or columns of matrices are divided among N ranks.",
        default=1,
        least=1,
        holds="kv groups, heads, FFN sizes and vocabulary are divisible by TP",
        recorded=("tensor_model_parallel_size",),
        aliases=("--tp", "--tensor-model-parallel-size"),
    )
    target_pipeline_parallel_size: int | None = option(
        panel=_SPLIT,
        metavar="N",
        help="PP: layers are divided among N stages.",
        default=1,
        least=1,
        holds="L is divisible by PP, or a layer list is given",
        recorded=("pipeline_model_parallel_size",),
        aliases=("--pp", "--pipeline-model-parallel-size"),
    )
    target_expert_parallel_size: int | None = option(
        panel=_SPLIT,
        metavar="N",
        help="EP: experts are divided among N ranks.",
        default=1,
        least=1,
        holds="the model has experts, and their number is divisible by EP",
        recorded=("expert_model_parallel_size",),
        feature="moe",
        aliases=("--ep", "--expert-model-parallel-size"),
    )
    expert_tensor_parallel_size: int | None = option(
        panel=_SPLIT,
        metavar="N",
        help="ETP: into how many parts each expert is cut.",
        same_as="target_tensor_parallel_size",
        unset="TP",
        least=1,
        holds="mindspeed: 1 or TP; with 1, TP must be a multiple of EP or EP of TP, and only the ranks that hold "
        "something new are written; megatron: a divisor of TP",
        recorded=("expert_tensor_parallel_size",),
        feature="moe",
        aliases=("--etp",),
    )
    num_layers_per_virtual_pipeline_stage: int | None = option(
        panel=_SPLIT,
        metavar="N",
        help="VPP: each stage has chunks of N layers, model0, model1, ...",
        unset="none",
        least=1,
        holds="L / PP is divisible by N; not with a layer list or dualpipev",
        recorded=("num_layers_per_virtual_pipeline_stage",),
        aliases=("--vpp",),
    )
    num_layer_list: tuple[int, ...] | None = option(
        panel=_SPLIT,
        metavar="N,N,...",
        help="Layers of each stage in order, for example 3,4,4,3.",
        default=(),
        unset="even",
        holds="one entry for each stage, their sum is R; not with VPP, noop layers or dualpipev",
        recorded=("num_layer_list",),
        dialects=(MINDSPEED,),
    )
    noop_layers: tuple[int, ...] | None = option(
        panel=_SPLIT,
        metavar="N,N,...",
        help="Slots, counted from 0 over all L, that hold no layer, for example 94,95.",
        default=(),
        unset="none",
        holds="each below L, none twice, not all of them",
        recorded=("noop_layers",),
        dialects=(MINDSPEED,),
    )
    schedules_method: str | None = option(
        panel=_SPLIT,
        metavar="dualpipev",
        help="Stage p holds the p-th and the p-th last piece of the layers, as model0 and model1.",
        unset="none",
        choices=("dualpipev",),
        holds="L / PP is even; not with VPP or a layer list",
        recorded=("schedules_method",),
        dialects=(MINDSPEED,),
    )
    num_virtual_stages_per_pipeline_rank: int | None = option(
        panel=_SPLIT,
        metavar="N",
        help="VPP: each stage has N chunks, model0, model1, ...",
        unset="none",
        least=1,
        holds="every stage's layers are divisible by N; not with --num-layers-per-virtual-pipeline-stage or a layout",
        recorded=("num_virtual_stages_per_pipeline_rank",),
        dialects=(MEGATRON,),
    )
    decoder_first_pipeline_num_layers: int | None = option(
        panel=_SPLIT,
        metavar="N",
        help="Layers of the first stage; the stages in between have equally many.",
        unset="even",
        least=1,
        holds="the other stages divide the rest evenly",
        recorded=("decoder_first_pipeline_num_layers",),
        dialects=(MEGATRON,),
    )
    decoder_last_pipeline_num_layers: int | None = option(
        panel=_SPLIT,
        metavar="N",
        help="Layers of the last stage.",
        unset="even",
        least=1,
        holds="the other stages divide the rest evenly",
        recorded=("decoder_last_pipeline_num_layers",),
        dialects=(MEGATRON,),
    )
    account_for_embedding_in_pipeline_split: bool | None = option(
        panel=_SPLIT,
        help="The embedding counts as a layer: the first stage has one less.",
        holds="R and what is counted besides are divisible by PP",
        recorded=("account_for_embedding_in_pipeline_split",),
        dialects=(MEGATRON,),
    )
    account_for_loss_in_pipeline_split: bool | None = option(
        panel=_SPLIT,
        help="The loss counts as a layer: the last stage has one less.",
        holds="R and what is counted besides are divisible by PP",
        recorded=("account_for_loss_in_pipeline_split",),
        dialects=(MEGATRON,),
    )
    pipeline_model_parallel_layout: str | None = option(
        panel=_SPLIT,
        metavar="LAYOUT",
        help="What each virtual stage holds, in Megatron's letters: E embedding, t layer, m MTP layer, L loss, with | "
        "between stages, such as 'Et*3|(tt|)*6tmL'.",
        unset="even",
        holds="PP x VPP stages with all layers; not with other options for stages",
        recorded=("pipeline_model_parallel_layout",),
        dialects=(MEGATRON,),
    )
    moe_grouped_gemm: bool | None = option(
        panel=_TENSORS,
        help="All experts of a rank are in one tensor, as grouped GEMM wants them.",
        unset="one by one",
        holds="the model has experts",
        recorded=("moe_grouped_gemm",),
        feature="moe",
    )
    moe_tp_extend_ep: bool | None = option(
        panel=_TENSORS,
        help="Experts are not cut; whole ones go round EP x TP ranks.",
        unset="off",
        holds="experts are divisible by EP x TP; not with ETP 1",
        recorded=("moe_tp_extend_ep",),
        dialects=(MINDSPEED,),
        feature="moe",
    )
    moe_use_legacy_grouped_gemm: bool | None = option(
        panel=_TENSORS,
        help="With --moe-grouped-gemm: the one tensor of the older implementation, also with transformer_engine.",
        unset="off",
        holds="megatron-core up to 0.16",
        recorded=("moe_use_legacy_grouped_gemm",),
        feature="moe",
        dialects=(MEGATRON,),
    )
    mla_mm_split: bool | None = option(
        panel=_TENSORS,
        help="The two up projections of latent attention are four tensors.",
        unset="off",
        holds="the model has latent attention",
        recorded=("mla_mm_split",),
        dialects=(MINDSPEED,),
        feature="mla",
    )
    transformer_impl: str | None = option(
        panel=_TENSORS,
        metavar="IMPL",
        help="Names of tensors: local or transformer_engine.",
        default="local",
        defaults={MEGATRON: "transformer_engine"},
        choices=("local", "transformer_engine"),
        holds="mindspeed: transformer_engine not with MTP layers; megatron: local not with latent attention",
        recorded=("transformer_impl",),
    )
    megatron_core_version: str | None = option(
        panel=_TENSORS,
        metavar="VERSION",
        help="The version of megatron-core whose names and layouts are wanted.",
        default=VERSIONS[-1],
        holds=f"{VERSIONS[0]} to {VERSIONS[-1]}, also with a third number",
        dialects=(MEGATRON,),
    )
    ckpt_format: str | None = option(
        panel=_TENSORS,
        metavar="FORMAT",
        help="torch: a file for each rank; torch_dist: global tensors, which load at any parallel sizes.",
        default=TORCH,
        choices=(TORCH, TORCH_DIST),
        holds="torch_dist only with --dialect megatron; parallel sizes then decide args, flags and padding alone",
        dialects=(MEGATRON,),
    )
    non_homogeneous_layers: bool | None = option(
        panel=_TENSORS,
        help="With torch_dist: every layer's tensors by themselves, which training asks for where it is given a list "
        "of the layers with experts, even one of ones.",
        unset="where layers differ",
        holds="torch_dist",
        dialects=(MEGATRON,),
    )
    make_vocab_size_divisible_by: int | None = option(
        panel=_TENSORS,
        metavar="N",
        help="Pad the vocabulary with zero rows to a multiple of N x TP; the way back cuts them off.",
        unset="no padding; 128 with --dialect megatron",
        defaults={MEGATRON: 128},
        least=1,
    )
    mtp_num_layers: int | None = option(
        panel=_LAYERS,
        metavar="N",
        help="Multi-token prediction layers to take along; the others are left out, and said so.",
        default=0,
        least=0,
        holds="at most those of the model",
        recorded=("mtp_num_layers",),
        feature="mtp",
    )
    num_layers: int | None = option(
        panel=_LAYERS,
        metavar="N",
        help="Take only the first N layers (MTP and noop layers not counted), to try out training.",
        unset="all",
        least=1,
        holds="at most those of the model",
    )
    first_k_dense_replace: int | None = option(
        panel=_LAYERS,
        metavar="K",
        help="With --num-layers: dense layers 0 to K - 1, then layers with experts.",
        unset="the model's own",
        least=0,
        holds="at most the model's leading dense layers",
        feature="moe",
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a model whose configuration doesn't say them."""

    hidden_size: int | None = option(panel=_SIZES, metavar="N", help="Hidden size.", unset=_SAID, least=1)
    mamba_state_dim: int | None = option(panel=_SIZES, metavar="N", help="State size.", unset=_SAID, least=1)
    mamba_head_dim: int | None = option(panel=_SIZES, metavar="N", help="Size of a head.", unset=_SAID, least=1)
    mamba_num_groups: int | None = option(panel=_SIZES, metavar="N", help="Number of groups.", unset=_SAID, least=1)
