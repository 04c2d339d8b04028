"""The commands, as a table: which options each of them has, and what its help says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from mscvt.cli.plugin_tables import NewPlugin, Prepared, RecipeShown
from mscvt.cli.tables import (
    Checking,
    Compared,
    Direction,
    Folders,
    Inspecting,
    Machines,
    Model,
    Output,
    Planned,
    Progress,
    Repository,
    Resources,
    Target,
    Values,
    Writing,
)
from mscvt.dialects.options import MEGATRON, Options, Sizes
from mscvt.model.lora import Lora
from mscvt.model.options import Row, rows
from mscvt.records import dataclass

RECORDED = "what args record"
"""The default, on the way back, of all that a checkpoint's `args` record."""
_NEW = frozenset(row.name for row in rows(Options).values() if row.dialects == (MEGATRON,)) | {"dialect"}
"""Options that MindSpeed-LLM's script doesn't have, nor anything to do with."""
_ONLY_TO_MEGATRON = frozenset({"num_layers", "first_k_dense_replace", "dequantize"})


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    summary: str
    """One sentence, which the help of the program shows too."""
    text: str
    """What else the command's own help says."""
    example: str
    tables: tuple[type[Any], ...]
    """The tables of its options, in the order in which the help shows them."""
    without: frozenset[str] = frozenset()
    """Options of the tables that it doesn't have."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Options that it can do without, though others can't -> what holds where they are not given."""
    ways: Mapping[str, Command] = field(default_factory=dict)
    """First word -> the command that the rest is for, in place of this one, which only its help shows."""
    positional: tuple[str, ...] = ()
    """Options whose values may be given without their names, in this order."""
    reads_args: bool = False
    """Whether what `args` record is the default of the training stack's options."""
    takes_away: bool = False
    """Whether `none` as a value, or `--no-...`, takes an option away that the source has."""
    recipes: str = ""
    """Which table of a recipe holds its options."""
    takes_original: bool = False
    """Whether it takes the options of MindSpeed-LLM's script that mean nothing here."""

    @property
    def usage(self) -> str:
        """What follows the command's name."""
        return " ".join([*(self.rows[name].metavar for name in self.positional), "[OPTIONS]"])

    @cached_property
    def rows(self) -> Mapping[str, Row]:
        """Its options, by name."""
        found = {name: row for table in self.tables for name, row in rows(table).items()}
        found |= {
            name: replace(found[name], is_optional=True, unset=otherwise) for name, otherwise in self.optional.items()
        }
        return MappingProxyType({name: row for name, row in found.items() if name not in self.without})

    @cached_property
    def spelt(self) -> Mapping[str, Row]:
        """Its options, by every flag that each may be given with."""
        return MappingProxyType({spelling: row for row in self.rows.values() for spelling in row.flags})

    def otherwise(self, row: Row) -> str:
        """What holds where an option is not given to this command."""
        return RECORDED if self.reads_args and row.recorded else row.otherwise


_CONVERSION = (Options, Sizes, Values, Lora, Writing, Resources, Machines, Progress, Output)

_CONVERSIONS: tuple[Command, ...] = (
    Command(
        name="hf2mg",
        summary="Convert a Hugging Face checkpoint to Megatron-Core shards.",
        text="Parallel layout, tensors and layers must agree with the training script; what to pass to it is printed "
        "at the end.",
        example="""\
mscvt hf2mg --load-dir model-hf --save-dir model-mg \\
    --target-pipeline-parallel-size 4 --target-expert-parallel-size 32 \\
    --num-layers-per-virtual-pipeline-stage 8 --noop-layers 94,95 \\
    --moe-grouped-gemm""",
        tables=(Folders, Prepared, Model, *_CONVERSION),
        recipes="hf2mg",
        without=frozenset({"hf_cfg_dir", "iteration", "replicas", "save_lora_to_hf"}),
    ),
    Command(
        name="mg2hf",
        summary="Convert Megatron-Core shards to a Hugging Face checkpoint.",
        text="How it is cut is recorded in the checkpoint's args; options say it only where args don't.",
        example="""\
mscvt mg2hf --load-dir model-mg --save-dir model-back \\
    --hf-cfg-dir model-hf""",
        tables=(Folders, Prepared, Model, *_CONVERSION),
        recipes="mg2hf",
        without=_ONLY_TO_MEGATRON | {"save_lora_to_mg"},
        reads_args=True,
    ),
    Command(
        name="mg2mg",
        summary="Change the parallel layout of Megatron-Core shards.",
        text="What isn't given stays as the source's args record it; the value none, or --no-... of a switch, takes an "
        "option away.",
        example="""\
mscvt mg2mg --load-dir model-mg --save-dir model-tp4 \\
    --target-tensor-parallel-size 4 --noop-layers none""",
        tables=(Folders, Prepared, Model, *_CONVERSION),
        recipes="mg2mg",
        without=_ONLY_TO_MEGATRON | {"hf_cfg_dir", *rows(Sizes), *rows(Lora)},
        reads_args=True,
        takes_away=True,
    ),
)
_RUN_ONLY = frozenset({"dry_run", "verify", "overwrite", "resume", *rows(Resources), *rows(Machines)})
_NO_TARGET = {"save_dir": "free space is not looked at"}


def _planned(command: Command) -> Command:
    """The plan of a conversion, which takes its options."""
    return replace(
        command,
        name="plan",
        tables=(Planned, *command.tables),
        without=command.without | _RUN_ONLY,
        optional=_NO_TARGET,
        positional=("direction",),
    )


COMMANDS: tuple[Command, ...] = (
    *_CONVERSIONS,
    Command(
        name="plan",
        summary="Show what a conversion would write, and where everything goes.",
        text="The pipeline, which expert lies where, the files and the space that they take; one rank's tensors; one "
        "tensor's way. Only headers are read, and nothing is written. --dry-run of a conversion shows the same.",
        example="""\
mscvt plan hf2mg --load-dir model-hf --tp 2 --pp 4 --ep 8 \\
    --rank tp=0,pp=1,ep=3""",
        tables=(Planned, Folders, Prepared, Model, *_CONVERSION),
        without=_RUN_ONLY,
        optional=_NO_TARGET,
        positional=("direction",),
        ways={command.name: _planned(command) for command in _CONVERSIONS},
    ),
    Command(
        name="convert",
        summary="Convert with the command line of convert_ckpt_v2.py.",
        text="It takes the options of MindSpeed-LLM's script as they are; --load-model-type and --save-model-type say "
        "in which direction to convert.",
        example="""\
mscvt convert --load-model-type hf --save-model-type mg \\
    --load-dir model-hf --save-dir model-mg \\
    --target-tensor-parallel-size 2""",
        tables=(Folders, Direction, Model, *_CONVERSION),
        without=_NEW,
        takes_original=True,
    ),
    Command(
        name="verify",
        summary="Prove that two checkpoints hold the same weights.",
        text="Every byte of every rank is compared, replicas too. How the Megatron checkpoint is cut is recorded in "
        "its args.",
        example="mscvt verify --hf model-hf --mg model-mg",
        tables=(Compared, Model, Values, Resources, Machines, Progress, Output),
        without=frozenset({"hf_cfg_dir", "replicas"}),
    ),
    Command(
        name="download",
        summary="Fetch a model from a hub, as far as a conversion needs it.",
        text="Weights in one format, configuration, tokenizer. What arrives is compared with the checksums that the "
        "hub states; the same command goes on after a break.",
        example="mscvt download owner/model --to model-hf",
        tables=(Repository, Progress, Output),
        positional=("repository",),
    ),
    Command(
        name="check",
        summary="See that a Hugging Face checkpoint is whole.",
        text="Every file of the index, sizes and checksums that the hub or a .md5 states, headers, and the tensors "
        "that config.json describes. Each bad file is named.",
        example="mscvt check model-hf",
        tables=(Folders, Model, Checking, Progress, Output),
        without=frozenset({"save_dir", "hf_cfg_dir", "iteration"}),
        positional=("load_dir",),
    ),
    Command(
        name="status",
        summary="Show what is unfinished: how far it is, and what it lacks.",
        text="Of a conversion or a download that was interrupted, or is at work.",
        example="mscvt status model-mg",
        tables=(Target, Output),
        positional=("target",),
    ),
    Command(
        name="discard",
        summary="Give up what is unfinished, and remove exactly that.",
        text="What a finished run left, and files of others, stay. A run that is at work is not disturbed.",
        example="mscvt discard model-mg",
        tables=(Target, Output),
        positional=("target",),
    ),
    Command(
        name="inspect",
        summary="Show what is in a folder, whatever it is.",
        text="Model, parameters, dtypes, files, parallel sizes and pipeline, every tensor folded with its role and "
        "cut, and what is odd. It is recognised by itself, from headers alone.",
        example="mscvt inspect model-mg --scan",
        tables=(Folders, Model, Inspecting, Resources, Progress, Output),
        without=frozenset({"save_dir", "max_memory"}),
        positional=("load_dir",),
    ),
    Command(
        name="recipes",
        summary="List recipes for published models, or show one.",
        text="A recipe holds the options for one model and one parallel layout; --recipe of a conversion takes them. "
        "Plugins have them.",
        example="mscvt recipes",
        tables=(RecipeShown, Output),
        positional=("recipe",),
    ),
    Command(
        name="names",
        summary="Show the names in a Hugging Face checkpoint, folded.",
        text="One line for all that differ only in numbers; where a plugin serves the model, with role, Megatron key "
        "and cut, and with what is left over or missing. Only headers are read.",
        example="mscvt names model-hf",
        tables=(Folders, Model, Output),
        without=frozenset({"save_dir", "hf_cfg_dir", "iteration"}),
        positional=("load_dir",),
    ),
    Command(
        name="new-plugin",
        summary="Write the plugin of a family of models, to begin with.",
        text="A complete distribution with tests. With --from, its table of names is what could be recognised in a "
        "checkpoint; what could not, and what its configuration says that nothing reads, is listed, and tests fail "
        "where it matters.",
        example="mscvt new-plugin mine --from model-hf",
        tables=(NewPlugin, Output),
        positional=("name",),
    ),
    Command(
        name="plugins",
        summary="List the plugins, their model types and their errors.",
        text="",
        example="mscvt plugins --json",
        tables=(Output,),
    ),
)
BY_NAME: Mapping[str, Command] = MappingProxyType({command.name: command for command in COMMANDS})
