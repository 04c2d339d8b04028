"""The parameters of the commands, each with its help, written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from mscvt.dialects.mindspeed.options import Options


def _option(panel: str, flag: str, metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Option(flag, help=text, metavar=metavar, rich_help_panel=panel, show_default=False, **more)


_MODEL = "Checkpoints"
_SPLIT = "Parallel layout"
_TENSORS = "Tensors"
_LAYERS = "Layers"
_VALUES = "Values"
_RUN = "Running"

LoadDir = Annotated[Path, _option(_MODEL, "--load-dir", "DIR", "Folder of the source checkpoint.")]
SaveDir = Annotated[Path, _option(_MODEL, "--save-dir", "DIR", "Folder to create for the result.")]
LoadModelType = Annotated[
    Literal["hf", "mg"],
    _option(_MODEL, "--load-model-type", "hf|mg", "What the source is: Hugging Face (default) or Megatron."),
]
SaveModelType = Annotated[
    Literal["hf", "mg"], _option(_MODEL, "--save-model-type", "hf|mg", "What to make; mg is the default.")
]
Hf = Annotated[Path, _option(_MODEL, "--hf", "DIR", "Folder of the Hugging Face checkpoint.")]
Mg = Annotated[Path, _option(_MODEL, "--mg", "DIR", "Folder of the Megatron checkpoint.")]
ModelTypeHf = Annotated[
    Optional[str],
    _option(
        _MODEL,
        "--model-type-hf",
        "TYPE",
        "Model type, one of those that `mscvt plugins` lists. Default: what the checkpoint says.",
    ),
]
HfCfgDir = Annotated[
    Optional[Path],
    _option(_MODEL, "--hf-cfg-dir", "DIR", "Folder of the original model; its config.json and tokenizer are copied."),
]
Iteration = Annotated[
    Optional[int],
    _option(_MODEL, "--iteration", "N", "Iteration to read. Default: what the tracker file says.", min=0),
]

TensorParallel = Annotated[
    Optional[int],
    _option(
        _SPLIT,
        "--target-tensor-parallel-size",
        "N",
        "TP, tensor parallel ranks. Default: 1.",
    ),
]
PipelineParallel = Annotated[
    Optional[int],
    _option(
        _SPLIT,
        "--target-pipeline-parallel-size",
        "N",
        "PP, pipeline stages. Default: 1.",
    ),
]
ExpertParallel = Annotated[
    Optional[int],
    _option(
        _SPLIT,
        "--target-expert-parallel-size",
        "N",
        "EP, expert parallel ranks. Default: 1.",
    ),
]
ExpertTensorParallel = Annotated[
    Optional[int],
    _option(
        _SPLIT,
        "--expert-tensor-parallel-size",
        "N",
        "ETP, cuts of each expert: 1 or TP. Default: TP.",
    ),
]
VirtualStage = Annotated[
    Optional[int],
    _option(_SPLIT, "--num-layers-per-virtual-pipeline-stage", "N", "VPP: layers of each virtual stage."),
]
LayerList = Annotated[
    Optional[str], _option(_SPLIT, "--num-layer-list", "N,N,...", "Layers of each stage, for example 3,4,4,3.")
]
NoopLayers = Annotated[
    Optional[str], _option(_SPLIT, "--noop-layers", "N,N,...", "Slots that hold no layer, for example 94,95.")
]
Schedules = Annotated[
    Optional[str], _option(_SPLIT, "--schedules-method", "METHOD", "dualpipev: two mirrored chunks for each stage.")
]

GroupedGemm = Annotated[
    Optional[bool], _option(_TENSORS, "--moe-grouped-gemm", None, "Keep all experts of a rank in one tensor.")
]
TpExtendEp = Annotated[
    Optional[bool], _option(_TENSORS, "--moe-tp-extend-ep", None, "Spread whole experts over EP x TP ranks.")
]
MmSplit = Annotated[
    Optional[bool],
    _option(_TENSORS, "--mla-mm-split", None, "Keep the up projections of latent attention in four tensors."),
]
TransformerImpl = Annotated[
    Optional[str],
    _option(_TENSORS, "--transformer-impl", "IMPL", "Naming: local (default) or transformer_engine."),
]
VocabMultiple = Annotated[
    Optional[int],
    _option(
        _TENSORS,
        "--make-vocab-size-divisible-by",
        "N",
        "Pad the vocabulary with zero rows to a multiple of N x TP. Default: no padding.",
    ),
]

MtpLayers = Annotated[
    Optional[int],
    _option(
        _LAYERS,
        "--mtp-num-layers",
        "N",
        "Multi-token prediction layers to take along. Default: 0.",
    ),
]
NumLayers = Annotated[
    Optional[int], _option(_LAYERS, "--num-layers", "N", "Take only the first N layers. Default: all.")
]
FirstKDense = Annotated[
    Optional[int],
    _option(
        _LAYERS, "--first-k-dense-replace", "K", "With --num-layers: only the first K dense layers, then MoE layers."
    ),
]

Dtype = Annotated[
    Optional[Literal["bf16", "fp16", "fp32"]],
    _option(_VALUES, "--dtype", "bf16|fp16|fp32", "Convert weights to this type. Default: each tensor keeps its own."),
]
Dequantize = Annotated[bool, _option(_VALUES, "--dequantize", None, "Decode block-scaled FP8 weights to bf16.")]

DryRun = Annotated[bool, _option(_RUN, "--dry-run", None, "Plan and prove the conversion, list files, write nothing.")]
Verify = Annotated[bool, _option(_RUN, "--verify", None, "Read everything again afterwards and compare every byte.")]
Overwrite = Annotated[
    bool, _option(_RUN, "--overwrite", None, "Replace an existing result; discard another's unfinished work.")
]
Resume = Annotated[bool, _option(_RUN, "--resume", None, "Fail unless there is unfinished work to go on with.")]
Only = Annotated[
    Optional[str],
    _option(_RUN, "--only", "PART", "Write a part of the files, such as pp=0,ep=4-7 (towards Hugging Face: file=2-3)."),
]
Workers = Annotated[Optional[int], _option(_RUN, "--workers", "N", "Threads. Default: one for each core.", min=1)]
MaxMemory = Annotated[
    Optional[int],
    _option(_RUN, "--max-memory", "BYTES", "Memory for buffers, in bytes. Default: 64 MiB.", min=1 << 16),
]
Json = Annotated[bool, _option(_RUN, "--json", None, "Print the result as JSON.")]
Debug = Annotated[bool, _option(_RUN, "--debug", None, "Show the traceback of an error.")]

_LISTS = ("noop_layers", "num_layer_list")


def read_options(given: Mapping[str, Any]) -> Options:
    """The conversion's options from a command's parameters; lists are still text there.

    Raises:
        typer.BadParameter: Where a list is none.
    """
    values: dict[str, Any] = {field.name: given.get(field.name) for field in fields(Options)}
    for name in _LISTS:
        if values[name] is not None:
            values[name] = _numbers(values[name], "--" + name.replace("_", "-"))
    return Options(**values)


def _numbers(text: str, flag: str) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers like 3,4,4,3", param_hint=flag) from None
