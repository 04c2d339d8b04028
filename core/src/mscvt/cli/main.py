"""The commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mscvt.cli import parameters as p
from mscvt.cli.help_text import PlainGroup, SectionedCommand
from mscvt.errors import MscvtError

_INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended."""

app = typer.Typer(
    name="mscvt",
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
    help="Convert model weights between Hugging Face and Megatron-Core, exactly.",
    epilog="""\b
Examples:
  mscvt hf2mg --load-dir model-hf --save-dir model-mg \\
      --target-tensor-parallel-size 2
  mscvt mg2hf --load-dir model-mg --save-dir model-back --hf-cfg-dir model-hf
  mscvt verify --hf model-hf --mg model-mg

`mscvt COMMAND --help` shows the options of a command.""",
)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from mscvt import __version__

        typer.echo(f"mscvt {__version__}")
        raise typer.Exit


@app.command(
    cls=SectionedCommand,
    epilog="""\b
Example:
  mscvt hf2mg --load-dir model-hf --save-dir model-mg \\
      --target-pipeline-parallel-size 4 --target-expert-parallel-size 32 \\
      --num-layers-per-virtual-pipeline-stage 8 --noop-layers 94,95 \\
      --moe-grouped-gemm""",
)
def hf2mg(
    load_dir: p.LoadDir,
    save_dir: p.SaveDir,
    model_type_hf: p.ModelTypeHf = None,
    target_tensor_parallel_size: p.TensorParallel = None,
    target_pipeline_parallel_size: p.PipelineParallel = None,
    target_expert_parallel_size: p.ExpertParallel = None,
    expert_tensor_parallel_size: p.ExpertTensorParallel = None,
    num_layers_per_virtual_pipeline_stage: p.VirtualStage = None,
    num_layer_list: p.LayerList = None,
    noop_layers: p.NoopLayers = None,
    moe_grouped_gemm: p.GroupedGemm = None,
    moe_tp_extend_ep: p.TpExtendEp = None,
    mla_mm_split: p.MmSplit = None,
    schedules_method: p.Schedules = None,
    transformer_impl: p.TransformerImpl = None,
    make_vocab_size_divisible_by: p.VocabMultiple = None,
    mtp_num_layers: p.MtpLayers = None,
    num_layers: p.NumLayers = None,
    first_k_dense_replace: p.FirstKDense = None,
    dtype: p.Dtype = None,
    dequantize: p.Dequantize = False,
    dry_run: p.DryRun = False,
    verify: p.Verify = False,
    overwrite: p.Overwrite = False,
    resume: p.Resume = False,
    only: p.Only = None,
    workers: p.Workers = None,
    max_memory: p.MaxMemory = None,
    json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Convert a Hugging Face checkpoint to Megatron-Core shards.

    Parallel layout, tensors and layers must agree with the training script; what to pass to it is printed at the end.
    """
    _convert("mg", locals())


@app.command(
    cls=SectionedCommand,
    epilog="""\b
Example:
  mscvt mg2hf --load-dir model-mg --save-dir model-back \\
      --hf-cfg-dir model-hf""",
)
def mg2hf(
    load_dir: p.LoadDir,
    save_dir: p.SaveDir,
    model_type_hf: p.ModelTypeHf = None,
    hf_cfg_dir: p.HfCfgDir = None,
    iteration: p.Iteration = None,
    target_tensor_parallel_size: p.TensorParallel = None,
    target_pipeline_parallel_size: p.PipelineParallel = None,
    target_expert_parallel_size: p.ExpertParallel = None,
    expert_tensor_parallel_size: p.ExpertTensorParallel = None,
    num_layers_per_virtual_pipeline_stage: p.VirtualStage = None,
    num_layer_list: p.LayerList = None,
    noop_layers: p.NoopLayers = None,
    moe_grouped_gemm: p.GroupedGemm = None,
    moe_tp_extend_ep: p.TpExtendEp = None,
    mla_mm_split: p.MmSplit = None,
    schedules_method: p.Schedules = None,
    transformer_impl: p.TransformerImpl = None,
    mtp_num_layers: p.MtpLayers = None,
    dtype: p.Dtype = None,
    dry_run: p.DryRun = False,
    verify: p.Verify = False,
    overwrite: p.Overwrite = False,
    resume: p.Resume = False,
    only: p.Only = None,
    workers: p.Workers = None,
    max_memory: p.MaxMemory = None,
    json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Convert Megatron-Core shards to a Hugging Face checkpoint.

    How it is cut is recorded in the checkpoint's args; options say it only where args don't.
    """
    _convert("hf", locals())


@app.command(
    cls=SectionedCommand,
    epilog="""\b
Example:
  mscvt convert --load-model-type hf --save-model-type mg \\
      --load-dir model-hf --save-dir model-mg \\
      --target-tensor-parallel-size 2""",
)
def convert(
    load_dir: p.LoadDir,
    save_dir: p.SaveDir,
    load_model_type: p.LoadModelType = "hf",
    save_model_type: p.SaveModelType = "mg",
    model_type_hf: p.ModelTypeHf = None,
    hf_cfg_dir: p.HfCfgDir = None,
    iteration: p.Iteration = None,
    target_tensor_parallel_size: p.TensorParallel = None,
    target_pipeline_parallel_size: p.PipelineParallel = None,
    target_expert_parallel_size: p.ExpertParallel = None,
    expert_tensor_parallel_size: p.ExpertTensorParallel = None,
    num_layers_per_virtual_pipeline_stage: p.VirtualStage = None,
    num_layer_list: p.LayerList = None,
    noop_layers: p.NoopLayers = None,
    moe_grouped_gemm: p.GroupedGemm = None,
    moe_tp_extend_ep: p.TpExtendEp = None,
    mla_mm_split: p.MmSplit = None,
    schedules_method: p.Schedules = None,
    transformer_impl: p.TransformerImpl = None,
    make_vocab_size_divisible_by: p.VocabMultiple = None,
    mtp_num_layers: p.MtpLayers = None,
    num_layers: p.NumLayers = None,
    first_k_dense_replace: p.FirstKDense = None,
    dtype: p.Dtype = None,
    dequantize: p.Dequantize = False,
    dry_run: p.DryRun = False,
    verify: p.Verify = False,
    overwrite: p.Overwrite = False,
    resume: p.Resume = False,
    only: p.Only = None,
    workers: p.Workers = None,
    max_memory: p.MaxMemory = None,
    json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Convert with the command line of convert_ckpt_v2.py.

    It takes the options of MindSpeed-LLM's script as they are; --load-model-type and --save-model-type say in which
    direction to convert.
    """
    given = locals()
    if load_model_type == save_model_type:
        raise typer.BadParameter(
            f"both --load-model-type and --save-model-type are {load_model_type}; one must be hf, the other mg"
        )
    foreign = ("hf_cfg_dir", "iteration") if save_model_type == "mg" else ("dequantize",)
    for name in foreign:
        if given[name]:
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} has no meaning with --save-model-type {save_model_type}"
            )
    _convert(save_model_type, given)


@app.command(
    cls=SectionedCommand,
    epilog="""\b
Example:
  mscvt verify --hf model-hf --mg model-mg""",
)
def verify(
    hf: p.Hf,
    mg: p.Mg,
    model_type_hf: p.ModelTypeHf = None,
    iteration: p.Iteration = None,
    dtype: p.Dtype = None,
    dequantize: p.Dequantize = False,
    workers: p.Workers = None,
    max_memory: p.MaxMemory = None,
    json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Prove that two checkpoints hold the same weights, byte for byte.

    How the Megatron checkpoint is cut is recorded in its args. Every rank is compared, replicas too.
    """
    from mscvt.cli.commands import run_verify

    run_verify(locals())


@app.command(
    cls=SectionedCommand,
    epilog="""\b
Example:
  mscvt plugins --json""",
)
def plugins(json: p.Json = False, debug: p.Debug = False) -> None:
    """List the plugins, their model types and their errors."""
    from mscvt.cli.commands import list_plugins

    list_plugins(as_json=json)


def _convert(save_model_type: str, given: Mapping[str, Any]) -> None:
    from mscvt.cli.commands import run_convert

    run_convert(save_model_type, given)


def run() -> None:
    """The program: `main`, which ends at once on Ctrl-C where torch would take a second to unload."""
    try:
        main()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_INTERRUPTED)
        raise


def main() -> None:
    """Run the command line and exit: 0 where all went well, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("\ninterrupted", err=True)
        sys.exit(_INTERRUPTED)
    except MscvtError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"error: {error}", err=True)
        if error.hint:
            typer.echo(f"hint: {error.hint}", err=True)
        sys.exit(1)
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(1)
