"""The options that are not the training stack's: folders, the model, values, and how to run."""

from __future__ import annotations

from pathlib import Path

from mscvt.model.options import option
from mscvt.model.values import Bytes
from mscvt.records import dataclass

_MODEL = "Checkpoints"
_VALUES = "Values"
_SHOWN = "What is shown"
_RUN = "Running"
_KINDS = ("hf", "mg")
_WAYS = ("hf2mg", "mg2hf", "mg2mg")
_EXECUTORS = ("local", "ray")
_HUBS = ("huggingface", "modelscope")


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a conversion reads and writes."""

    load_dir: Path = option(panel=_MODEL, metavar="DIR", help="Folder of the source.")
    save_dir: Path = option(
        panel=_MODEL,
        metavar="DIR",
        help="Folder to create, with its parents.",
        holds="it does not exist or is empty, is not in a folder that is read and holds none",
    )


@dataclass(frozen=True, slots=True)
class Direction:
    """From what to what."""

    load_model_type: str = option(
        panel=_MODEL,
        metavar="hf|mg",
        help="What the source is: Hugging Face or Megatron.",
        default="hf",
        choices=_KINDS,
    )
    save_model_type: str = option(
        panel=_MODEL,
        metavar="hf|mg",
        help="What to make.",
        default="mg",
        choices=_KINDS,
        holds="the other one of the two",
    )


@dataclass(frozen=True, slots=True)
class Planned:
    """Which conversion is planned, and what is shown of it."""

    direction: str = option(
        panel=_MODEL,
        metavar="|".join(_WAYS),
        help="The command that would convert; its options are taken.",
        choices=_WAYS,
    )
    rank: str | None = option(
        panel=_SHOWN,
        metavar="RANK",
        help="One rank's keys and shapes, and where each comes from, such as tp=0,pp=1,ep=3; towards Hugging Face of "
        "what is read.",
        unset="the pipeline",
        holds="one rank is so",
    )
    tensor: str | None = option(
        panel=_SHOWN,
        metavar="NAME",
        help="The way of one Hugging Face tensor to every rank that holds some of it.",
        unset="the pipeline",
    )
    html: Path | None = option(
        panel=_SHOWN,
        metavar="FILE",
        help="Write all of it as one page too, with the tensors drawn as they are cut; an earlier page is replaced.",
        unset="no page",
        holds="it ends in .html",
    )
    training_args: bool = option(
        panel=_SHOWN,
        help="What the training script must be told and nothing else, and what each option is for.",
        holds="the result is for training",
    )


@dataclass(frozen=True, slots=True)
class Inspecting:
    """How thoroughly a folder is looked into."""

    scan: bool = option(panel=_RUN, help="Read every value too: NaN, infinities, tensors that are all zero.")


@dataclass(frozen=True, slots=True)
class Compared:
    """The two checkpoints that are compared."""

    hf: Path = option(panel=_MODEL, metavar="DIR", help="Folder of the Hugging Face checkpoint.")
    mg: Path = option(panel=_MODEL, metavar="DIR", help="Folder of the Megatron checkpoint.")


@dataclass(frozen=True, slots=True)
class Repository:
    """A model on a hub, and where it is put."""

    repository: str = option(panel=_MODEL, metavar="REPO", help="Model on a hub, as owner/name.")
    to: Path = option(
        panel=_MODEL,
        metavar="DIR",
        help="Folder to fill.",
        holds="what it holds already is of this model, or in nobody's way",
    )
    source: str = option(
        panel=_MODEL,
        metavar="|".join(_HUBS),
        help="The hub.",
        default=_HUBS[0],
        choices=_HUBS,
    )
    revision: str | None = option(
        panel=_MODEL,
        metavar="REV",
        help="Branch, tag or commit.",
        unset="the main branch; a download that goes on keeps to its commit",
    )
    connections: int = option(
        panel=_RUN, metavar="N", help="Files that are fetched at the same time.", default=8, least=1
    )


@dataclass(frozen=True, slots=True)
class Target:
    """What was to be made."""

    target: Path = option(panel=_MODEL, metavar="DIR", help="Folder that --save-dir, or --to of a download, named.")


@dataclass(frozen=True, slots=True)
class Checking:
    """How thoroughly a folder is looked at."""

    quick: bool = option(panel=_RUN, help="Leave out checksums, for which every byte is read.")


@dataclass(frozen=True, slots=True)
class Model:
    """Which model it is."""

    model_type_hf: str | None = option(
        panel=_MODEL,
        metavar="TYPE",
        help="Model type, one of those that `mscvt plugins` lists, or as config.json spells it.",
        unset="what config.json says, on the way back what args record",
    )
    hf_cfg_dir: Path | None = option(
        panel=_MODEL,
        metavar="DIR",
        help="Folder of the original model: its config.json and tokenizer files are copied beside the weights, and "
        "its sizes fill in what args lack.",
        unset="only weights are written",
        aliases=("--hf-dir",),
    )
    iteration: int | None = option(
        panel=_MODEL,
        metavar="N",
        help="Iteration to read (iter_000000N).",
        unset="what latest_checkpointed_iteration.txt says, also release",
        least=0,
    )


@dataclass(frozen=True, slots=True)
class Values:
    """What becomes of the values of weights."""

    dtype: str | None = option(
        panel=_VALUES,
        metavar="bf16|fp16|fp32",
        help="Convert weights to this type; the router's bias and a few others that must stay exact keep theirs. For "
        "verify: the type that they were converted to.",
        unset="each tensor keeps its own",
        choices=("bf16", "fp16", "fp32"),
    )
    dequantize: bool = option(
        panel=_VALUES,
        help="Decode quantised weights to bf16.",
        unset="such a source is refused",
        holds="the source is quantised",
    )
    replicas: str = option(
        panel=_VALUES,
        metavar="equal|first",
        help="What several ranks hold must be equal, or is taken from the first of them.",
        default="equal",
        choices=("equal", "first"),
    )


@dataclass(frozen=True, slots=True)
class Writing:
    """How the result is written."""

    dry_run: bool = option(panel=_RUN, help="Plan, prove that every byte is accounted for, list files, write nothing.")
    verify: bool = option(panel=_RUN, help="Before the result appears, read everything again and compare every byte.")
    overwrite: bool = option(
        panel=_RUN,
        help="Replace an existing checkpoint when the new one is whole; discard another's unfinished work.",
        unset="both are refused",
    )
    resume: bool = option(
        panel=_RUN,
        help="Fail unless there is unfinished work of this very conversion; it is taken up without the option too.",
    )
    only: str | None = option(
        panel=_RUN,
        metavar="PART",
        help="Write a part of the files, such as pp=0,ep=4-7: tp, pp, ep, or file towards Hugging Face, each with a "
        "number or a range; the result appears when all parts are there.",
        unset="everything",
    )


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run may use."""

    workers: int | None = option(panel=_RUN, metavar="N", help="Threads.", unset="one for each core", least=1)
    max_memory: Bytes | None = option(
        panel=_RUN,
        metavar="SIZE",
        help="Memory for all buffers together, with or without a unit (64MiB, 1GB).",
        unset="64MiB",
        holds="at least 64KiB",
        least=1 << 16,
    )


@dataclass(frozen=True, slots=True)
class Machines:
    """Where the work is done."""

    executor: str = option(
        panel=_RUN,
        metavar="|".join(_EXECUTORS),
        help="Work in this process, or as parts on a Ray cluster whose nodes share the folders; --workers and "
        "--max-memory are those of a part.",
        default=_EXECUTORS[0],
        choices=_EXECUTORS,
    )
    ray_address: str | None = option(
        panel=_RUN,
        metavar="ADDR",
        help="Address of the Ray cluster.",
        unset="RAY_ADDRESS, or the cluster of this machine",
        holds="with --executor ray",
    )


@dataclass(frozen=True, slots=True)
class Output:
    """What is shown."""

    json: bool = option(panel=_RUN, help="Print the result, or the error, as JSON on stdout, and nothing else there.")
    debug: bool = option(panel=_RUN, help="Show the traceback of an error.")


@dataclass(frozen=True, slots=True)
class Progress:
    """What is shown meanwhile."""

    quiet: bool = option(panel=_RUN, help="Show no progress.")
    log_file: Path | None = option(
        panel=_RUN,
        metavar="FILE",
        help="Add lines with times to this file: what is done, how far, and how it ended; with --json one JSON object "
        "each.",
        unset="no file",
        holds="its folder exists",
    )
