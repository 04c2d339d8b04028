"""The parameters of the commands, each with its help, written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from mscvt.options import Options

_SPLIT = "Parallel layout"
_LAYERS = "Layers"
_RUN = "Running"

LoadDir = Annotated[Path, typer.Option("--load-dir", help="Folder of the source checkpoint.", metavar="DIR")]
SaveDir = Annotated[Path, typer.Option("--save-dir", help="Folder to create for the result.", metavar="DIR")]
ModelTypeHf = Annotated[
    Optional[str],
    typer.Option(
        "--model-type-hf",
        help="Model type, for example qwen3-moe; `mscvt plugins` lists them. Default: what config.json says.",
        metavar="TYPE",
    ),
]
TensorParallel = Annotated[
    Optional[int],
    typer.Option("--target-tensor-parallel-size", help="TP. Default 1.", metavar="N", rich_help_panel=_SPLIT),
]
PipelineParallel = Annotated[
    Optional[int],
    typer.Option("--target-pipeline-parallel-size", help="PP. Default 1.", metavar="N", rich_help_panel=_SPLIT),
]
ExpertParallel = Annotated[
    Optional[int],
    typer.Option("--target-expert-parallel-size", help="EP. Default 1.", metavar="N", rich_help_panel=_SPLIT),
]
ExpertTensorParallel = Annotated[
    Optional[int],
    typer.Option(
        "--expert-tensor-parallel-size", help="ETP: 1, or TP (the default).", metavar="N", rich_help_panel=_SPLIT
    ),
]
VirtualStage = Annotated[
    Optional[int],
    typer.Option(
        "--num-layers-per-virtual-pipeline-stage",
        help="VPP: layers of each virtual stage.",
        metavar="N",
        rich_help_panel=_SPLIT,
    ),
]
LayerList = Annotated[
    Optional[str],
    typer.Option(
        "--num-layer-list",
        help="Layers of each pipeline stage, for example 3,4,4,3.",
        metavar="N,N,...",
        rich_help_panel=_SPLIT,
    ),
]
NoopLayers = Annotated[
    Optional[str],
    typer.Option(
        "--noop-layers", help="Slots that hold no layer, for example 94,95.", metavar="N,N,...", rich_help_panel=_SPLIT
    ),
]
Schedules = Annotated[
    Optional[str],
    typer.Option("--schedules-method", help="Only dualpipev.", metavar="METHOD", rich_help_panel=_SPLIT),
]
GroupedGemm = Annotated[
    Optional[bool],
    typer.Option(
        "--moe-grouped-gemm", help="Keep a rank's experts in one tensor.", rich_help_panel=_SPLIT, show_default=False
    ),
]
TpExtendEp = Annotated[
    Optional[bool],
    typer.Option(
        "--moe-tp-extend-ep",
        help="Spread whole experts over EP x TP ranks.",
        rich_help_panel=_SPLIT,
        show_default=False,
    ),
]
MmSplit = Annotated[
    Optional[bool],
    typer.Option(
        "--mla-mm-split",
        help="Keep the up projections of latent attention in four tensors.",
        rich_help_panel=_SPLIT,
        show_default=False,
    ),
]
TransformerImpl = Annotated[
    Optional[str],
    typer.Option(
        "--transformer-impl",
        help="Names of the tensors: local (default) or transformer_engine.",
        metavar="IMPL",
        rich_help_panel=_SPLIT,
    ),
]
VocabMultiple = Annotated[
    Optional[int],
    typer.Option(
        "--make-vocab-size-divisible-by",
        help="Pad the vocabulary with zero rows to a multiple of N x TP. Default: no padding.",
        metavar="N",
        rich_help_panel=_SPLIT,
    ),
]
MtpLayers = Annotated[
    Optional[int],
    typer.Option(
        "--mtp-num-layers",
        help="Multi-token prediction layers to convert. Default 0.",
        metavar="N",
        rich_help_panel=_LAYERS,
    ),
]
NumLayers = Annotated[
    Optional[int],
    typer.Option("--num-layers", help="Convert only the first N layers.", metavar="N", rich_help_panel=_LAYERS),
]
FirstKDense = Annotated[
    Optional[int],
    typer.Option(
        "--first-k-dense-replace",
        help="With --num-layers: keep only the first K dense layers.",
        metavar="K",
        rich_help_panel=_LAYERS,
    ),
]
Dtype = Annotated[
    Optional[Literal["bf16", "fp16", "fp32"]],
    typer.Option("--dtype", help="Convert weights to this type. Default: each tensor keeps its own."),
]
Dequantize = Annotated[bool, typer.Option("--dequantize", help="Decode FP8 weights with scales to bf16.")]
HfCfgDir = Annotated[
    Optional[Path],
    typer.Option("--hf-cfg-dir", help="Copy config.json and the tokenizer from this folder.", metavar="DIR"),
]
Iteration = Annotated[
    Optional[int],
    typer.Option("--iteration", help="Iteration to read. Default: what the tracker says.", metavar="N", min=0),
]
Workers = Annotated[
    Optional[int],
    typer.Option("--workers", help="Threads. Default: one for each core.", metavar="N", min=1, rich_help_panel=_RUN),
]
MaxMemory = Annotated[
    Optional[int],
    typer.Option(
        "--max-memory", help="Bytes for buffers. Default 64 MiB.", metavar="BYTES", min=1 << 16, rich_help_panel=_RUN
    ),
]
Only = Annotated[
    Optional[str],
    typer.Option(
        "--only",
        help="Write a part: pp=0,ep=4-7 (or file=2-3 towards Hugging Face).",
        metavar="PART",
        rich_help_panel=_RUN,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace an existing result, discard another's unfinished work.", rich_help_panel=_RUN
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Insist on going on with unfinished work.", rich_help_panel=_RUN)
]
Verify = Annotated[bool, typer.Option("--verify", help="Read everything again and compare it.", rich_help_panel=_RUN)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Plan and prove the conversion, and write nothing.", rich_help_panel=_RUN)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=_RUN)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_RUN)]

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
