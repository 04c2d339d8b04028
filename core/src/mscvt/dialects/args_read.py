"""What a checkpoint's `args` say: a model's sizes and the options it was made with.

Names follow Megatron's and MindSpeed-LLM's arguments; `ARGUMENT_NAMES` lists those that differ from the
hyperparameter's own, the first of which is preferred when reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from mscvt.dialects.options import MINDSPEED, Options
from mscvt.errors import Faults, MscvtError
from mscvt.model.family import Hyperparameters
from mscvt.model.fields import is_whole
from mscvt.model.hyperparameters import check_sizes, complete, model_fields, pad_vocabulary, shown_value
from mscvt.model.options import check_values, flag, rows, rows_in
from mscvt.model.values import KINDS
from mscvt.plugins.family import Family

ARGUMENT_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ffn_hidden_size": ("ffn_hidden_size", "intermediate_size"),
        "moe_intermediate_size": ("moe_intermediate_size", "moe_ffn_hidden_size"),
        "num_experts": ("num_experts", "num_moe_experts"),
        "mtp_num_layers": ("mtp_num_layers", "num_nextn_predict_layers"),
        "qk_nope_head_dim": ("qk_head_dim", "qk_nope_head_dim"),
        "qk_rope_head_dim": ("qk_pos_emb_head_dim", "qk_rope_head_dim"),
    }
)
_DERIVED = frozenset({"num_layers", "num_query_groups", "tie_word_embeddings", "vocab_size", "mtp_num_layers"})
"""Hyperparameters that are not recorded under their own name alone."""
MODEL_TYPE = "model_type_hf"
DIALECT, VERSION = "mscvt_dialect", "mscvt_megatron_core_version"
"""Where mscvt records what names a checkpoint has, unless they are the usual dialect's."""
ABSENT = "absent_mtp_copies"
"""Where mscvt records which tensors the MTP layers of the original checkpoint did not repeat, as `0.head`."""


def read_options(args: Mapping[str, Any], asked: Options) -> tuple[Options, tuple[str, ...]]:
    """The options of a checkpoint: what `args` records, else what was asked for, else the defaults (None).

    Args:
        args: What the checkpoint recorded, in our words.
        asked: What was asked for, with the dialect and the version that the checkpoint was recognised to be of.

    Returns:
        The options, and what was asked for without meaning, one line each.

    Raises:
        MscvtError: Where something was asked for that contradicts what is recorded; all faults at once.
    """
    faults = Faults()
    values: dict[str, Any] = {}
    notes = []
    for row in rows_in(Options, asked.dialect or MINDSPEED).values():
        wanted = getattr(asked, row.name)
        if row.name in _RECOGNISED:
            values[row.name] = wanted
            continue
        name = next((n for n in row.recorded if args.get(n) is not None), None)
        if name is None:
            values[row.name] = _unrecorded(row.name, wanted, args, faults)
            continue
        recorded = _parse(row.name, name, args[name])
        values[row.name] = recorded
        if row.name.startswith("target_") and wanted == 1 != recorded:  # scripts say that Hugging Face has one rank
            notes.append(f"{row.flag} 1 means nothing on the way back: the checkpoint's args record {recorded}")
            continue
        if row.name == "noop_layers" and wanted:
            wanted = tuple(sorted(wanted))
        if wanted is not None and wanted != recorded:
            faults.add(
                f"{row.flag} {_shown(wanted)} contradicts the checkpoint, whose args record {_shown(recorded)}",
                hint="Leave the option out: what args record is the default.",
            )
    faults.raise_if_any("the options and the checkpoint contradict each other")
    if values.get("moe_tp_extend_ep"):  # experts are whole, and training may record that as ETP 1
        values["expert_tensor_parallel_size"] = None
    options = Options(**values)
    check_values(options, faults)
    faults.raise_if_any("the checkpoint's args record impossible values")
    return options, tuple(notes)


_RECOGNISED = ("dialect", "megatron_core_version")
"""What is recognised from the tensors, too."""
_REDUCED = ("num_layers", "first_k_dense_replace")
"""Which of a model's layers a checkpoint holds; asked for where its args don't say so."""
_NEVER_WITHOUT = frozenset({"target_tensor_parallel_size", "target_pipeline_parallel_size"})


def _unrecorded(name: str, wanted: Any, args: Mapping[str, Any], faults: Faults) -> Any:
    """An option that `args` has no value for: recorded as None means that it was not used."""
    row = rows(Options)[name]
    if name == "make_vocab_size_divisible_by" and args.get("padded_vocab_size") is None:
        return wanted
    if name in _REDUCED and args.get("num_layers") is None:
        return wanted
    if not row.recorded:
        if wanted is not None and wanted != _known(name, args):
            faults.add(
                f"{row.flag} {_shown(wanted)} is not what the checkpoint's args record",
                hint=f"Leave out {row.flag}: the checkpoint's args say what it holds.",
            )
        return None
    if wanted and any(n in args for n in row.recorded) and name not in _NEVER_WITHOUT:
        faults.add(
            f"{row.flag} {_shown(wanted)} contradicts the checkpoint, whose args record none",
            hint="Leave the option out: what args record is the default.",
        )
    return wanted


def _known(name: str, args: Mapping[str, Any]) -> Any:
    """What a checkpoint holds of an option that only the way to Megatron needs; layers without the noop ones."""
    value = args.get(name)
    if name == "num_layers" and isinstance(value, int) and args.get("noop_layers") is not None:
        value -= len(_parse("noop_layers", "noop_layers", args["noop_layers"]))
    return value


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _parse(name: str, recorded_name: str, value: Any) -> Any:
    """A recorded value in the type that `Options` has; training scripts record lists as text, list or set."""
    row = rows(Options)[name]
    default = row.default
    try:
        if isinstance(default, tuple):
            items: Iterable[Any] = (value.split(",") if value.strip() else ()) if isinstance(value, str) else value
            numbers = tuple(map(_whole, items))
            return tuple(sorted(numbers)) if name == "noop_layers" else numbers
        if isinstance(default, bool) and isinstance(value, (bool, int)):
            return bool(value)
        if row.kind is KINDS[str] and isinstance(value, str):
            return value
        if not isinstance(default, bool) and row.kind is not KINDS[str]:
            return _whole(value)
    except (TypeError, ValueError):
        pass
    raise MscvtError(
        f"the checkpoint's args record {recorded_name} = {shown_value(value)}, which can't be understood",
        hint="Is the file damaged? The args are those of the training run that saved it.",
    )


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError
    return int(value)


def read_hyperparameters(
    args: Mapping[str, Any], family: Family, options: Options, configured: Hyperparameters | None
) -> Hyperparameters:
    """The sizes of a checkpoint: what `args` records, completed from a configuration where one is given.

    Args:
        args: The checkpoint's args.
        family: The family.
        options: The options of the checkpoint.
        configured: What `config.json` of `--hf-cfg-dir` says, or None.

    Raises:
        MscvtError: Where something is recorded nowhere, or args and configuration contradict each other.
    """
    faults = Faults()
    values: dict[str, Any] = {}
    for name, entry in model_fields(family.model_type).items():
        if name in _DERIVED:
            continue
        names = ARGUMENT_NAMES.get(name, (name,))
        value = next((args[n] for n in names if args.get(n) is not None), None)
        if value is None and name in _REDUCED:
            value = getattr(options, name)
        if value is None and configured is not None:
            value = configured.get(name)
        if value is None and entry.default is ...:
            faults.add(f"{names[0]} is not recorded", hint="Give the model's config.json with --hf-cfg-dir.")
        if value is None:
            value = None if entry.default is ... else entry.default
        if value is not None:
            values[name] = value
    values |= _derived(args, options, configured, faults)
    check_sizes(values, family.model_type, faults)
    if not faults:
        complete(values, family.model_type, faults)
    lacks_mlp = not faults and "mlp.down" not in family.roles(family.layers(values), values)
    if configured is not None and lacks_mlp and "ffn_hidden_size" in configured:
        values["ffn_hidden_size"] = configured["ffn_hidden_size"]  # of no layer, and scripts give the experts' here
    if configured is not None and not faults:
        _compare(values, configured, faults)
    faults.raise_if_any("the checkpoint's args don't describe the model")
    return values


def _derived(
    args: Mapping[str, Any], options: Options, configured: Hyperparameters | None, faults: Faults
) -> dict[str, Any]:
    """What args record in another way than configurations do."""
    values: dict[str, Any] = {"mtp_num_layers": options.mtp_num_layers or 0}
    recorded = args.get("num_layers")
    if recorded is not None:
        is_count = isinstance(recorded, int)
        noop = options.noop_layers or ()
        values["num_layers"] = recorded - len(noop) if is_count else recorded
        if is_count and noop and recorded <= len(noop):
            faults.add(
                f"{flag('noop_layers')} {_shown(noop)}: covers all {recorded} slots (num_layers), no layer is left"
            )
    elif options.num_layers is not None:
        values["num_layers"] = options.num_layers
    elif configured is not None:
        values["num_layers"] = configured["num_layers"]
    else:
        faults.add("num_layers is not recorded", hint="Give the model's config.json with --hf-cfg-dir.")
    if args.get("num_key_value_heads") is not None:
        values["num_query_groups"] = args["num_key_value_heads"]
    elif args.get("group_query_attention") and args.get("num_query_groups") is not None:
        values["num_query_groups"] = args["num_query_groups"]
    elif args.get("group_query_attention") is None and configured is not None:  # not recorded, so not off either
        values["num_query_groups"] = configured["num_query_groups"]
    untied = args.get("untie_embeddings_and_output_weights")
    if untied is None and configured is not None:
        untied = not configured.get("tie_word_embeddings")
    if not isinstance(untied, (bool, int, type(None))):
        faults.add(f"untie_embeddings_and_output_weights is {shown_value(untied)}, expected true or false")
        untied = None
    values["tie_word_embeddings"] = not (True if untied is None else untied)
    real = configured["vocab_size"] if configured is not None else args.get("vocab_size")
    padded = args.get("padded_vocab_size")
    if padded is None and is_whole(real) and options.make_vocab_size_divisible_by:
        multiple, tensor = options.make_vocab_size_divisible_by, options.target_tensor_parallel_size or 1
        padded = pad_vocabulary({"vocab_size": real}, multiple, tensor)["padded_vocab_size"]
    padded = args.get("vocab_size") if padded is None else padded
    if real is None:
        faults.add(
            "vocab_size is not recorded, only its padded size" if padded else "vocab_size is not recorded",
            hint="Give the model's config.json with --hf-cfg-dir.",
        )
    elif not isinstance(padded, (int, type(None))) or not isinstance(real, int):
        faults.add(
            f"vocab_size is {shown_value(real)} and padded_vocab_size {shown_value(padded)}, expected whole numbers"
        )
    else:
        values["vocab_size"], values["padded_vocab_size"] = real, padded or real
        if (padded or real) < real:
            faults.add(f"vocab_size {real} is larger than padded_vocab_size {padded}")
    return values


_MAY_DIFFER = frozenset(
    {"vocab_size", "padded_vocab_size", "num_layers", "mtp_num_layers", "first_k_dense_replace"}
    | {"seq_length", "rotary_base", "rotary_percent", "norm_epsilon", "tie_word_embeddings"}
)
"""What training may set anew, or what reduced layers and padding change."""


def _compare(values: Mapping[str, Any], configured: Hyperparameters, faults: Faults) -> None:
    for name, value in values.items():
        said = configured.get(name)
        if name in _MAY_DIFFER or said is None:
            continue
        if isinstance(value, (list, tuple)) and values["num_layers"] != configured["num_layers"]:
            continue  # has an entry for each layer, of which some are left out
        if (list(value) if isinstance(value, (list, tuple)) else value) != (
            list(said) if isinstance(said, (list, tuple)) else said
        ):
            faults.add(
                f"{name}: the checkpoint's args record {value}, config.json says {said}",
                hint="Is --hf-cfg-dir the configuration of this model?",
            )
    for name in ("num_layers", "first_k_dense_replace"):
        if name in values and values[name] > configured.get(name, values[name]):
            faults.add(f"{name}: the checkpoint's args record {values[name]}, config.json says {configured[name]}")


def read_model_type(args: Mapping[str, Any]) -> str | None:
    """The model type that mscvt recorded, or None."""
    name = args.get(MODEL_TYPE)
    return name if isinstance(name, str) else None


def absent_copies(args: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What the MTP layers of the original checkpoint did not repeat; None where that is not recorded."""
    names = args.get(ABSENT)
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, (list, tuple)) else None
