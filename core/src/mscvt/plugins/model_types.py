"""The model types that a plugin serves, checked when it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mscvt.errors import MscvtError
from mscvt.errors.nearest import nearest
from mscvt.model.family import DENSE, MODEL, MOE, MTP, MTP_REPEATS, ModelType
from mscvt.model.fields import Field
from mscvt.model.hyperparameters import model_fields
from mscvt.model.options import Row, rows
from mscvt.plugins.answers import is_names, is_own, is_plain, is_table, is_texts
from mscvt.plugins.flags import is_flags


def served_types(
    hook: Callable[[], Any], options: type[Any] | None, *, hooks: Collection[str]
) -> tuple[ModelType, ...]:
    """The model types of a plugin.

    Args:
        hook: Its `mscvt_model_types`.
        options: The table of options that model types may speak of; None where nothing is known of these.
        hooks: The names of those that it implements.

    Raises:
        MscvtError: Where they are none, or can't be served.
    """
    types = hook()
    if not types or not isinstance(types, (list, tuple)) or not all(isinstance(t, ModelType) for t in types):
        raise MscvtError(f"mscvt_model_types must return a list of mscvt.ModelType, it returned {types!r}")
    names = [model_type.name for model_type in types]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise MscvtError(f"mscvt_model_types returns more than one model type named {', '.join(repeated)}")
    for model_type in types:
        _check(model_type, names_hook="mscvt_names" in hooks)
        if "mscvt_layers" not in hooks:
            _check_blocks(model_type)
        if options is not None:
            _check_options(model_type, rows(options))
    return tuple(types)


_BLOCKS = frozenset({MODEL, MTP, MTP_REPEATS, *DENSE, *MOE})
"""The blocks that a model can have whose layers the core enumerates."""
_TABLES: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        **dict.fromkeys(("matches", "sizes", "respell", "left_out"), (callable, "a function")),
        "flags": (lambda value: is_flags(value) or is_table(value, is_flags), "a list of words, or a function"),
        "names": (is_names, "block -> role -> name"),
        "names_if": (lambda value: is_table(value, is_names), "hyperparameter -> block -> role -> name"),
        "own": (lambda value: is_table(value, is_own), "block -> a list of Own"),
        **dict.fromkeys(("refused", "noted"), (is_texts, "option -> what to say")),
    }
)
"""What a model type must have been given."""


def _check(model_type: ModelType, *, names_hook: bool) -> None:
    """Refuse what would only be noticed in the middle of a conversion, or harm another family.

    Raises:
        MscvtError: The first fault.
    """
    name = model_type.name
    if not isinstance(name, str) or name.split() != [name]:
        raise MscvtError(f"a model type is named {name!r}, expected a word")
    for attribute in ("config_model_types", "ignored", "dialects"):
        value = getattr(model_type, attribute)
        if isinstance(value, str) or not all(isinstance(item, str) for item in value):
            raise MscvtError(f"{attribute} of {name!r} is {value!r}, expected a tuple of strings: ({value!r},)")
    for field, entry in model_type.fields.items():
        if not isinstance(entry, Field):
            raise MscvtError(f"field {field!r} of {name!r} is {entry!r}, expected count({entry!r}) or the like")
    for attribute, (is_right, expected) in _TABLES.items():
        if not is_right(value := getattr(model_type, attribute)):
            raise MscvtError(f"{attribute} of {name!r} is {value!r:.200}, expected {expected}")
    if unknown := sorted(set(model_type.names_if) - model_fields(model_type).keys()):
        raise MscvtError(f"names_if of {name!r} speaks of {', '.join(unknown)}, expected names of fields")
    if not callable(model_type.args) and not is_plain(dict(model_type.args)):
        raise MscvtError(f"args of {name!r} are not all plain values (numbers, text, lists): {model_type.args!r:.200}")
    if not callable(model_type.args) and (twice := sorted(model_type.args.keys() & model_fields(model_type).keys())):
        raise MscvtError(
            f"args of {name!r} give {', '.join(twice)}, which is a field: what config.json says of it is recorded"
        )
    if not names_hook and not model_type.names:
        raise MscvtError(f"{name!r} has no names: give the model type some, or implement mscvt_names")


def _check_blocks(model_type: ModelType) -> None:
    """Refuse names that no layer has, where layers are the core's own.

    Raises:
        MscvtError: The first fault.
    """
    name, fields = model_type.name, model_fields(model_type)
    blocks = {block for names in (model_type.names, model_type.own, *model_type.names_if.values()) for block in names}
    if unknown := sorted(blocks - _BLOCKS):
        near = nearest(unknown[0], _BLOCKS) or sorted(_BLOCKS)
        raise MscvtError(
            f"names of {name!r} have the block {unknown[0]!r}, which no layer has; did you mean {' or '.join(near)}? "
            "Layers with blocks of their own need mscvt_layers"
        )
    if "moe" in blocks and "num_experts" not in fields:
        near = nearest("num_experts", fields)
        raise MscvtError(
            f"names of {name!r} have the block 'moe', and its fields no num_experts, without which no layer has experts"
            + (f"; is it called {near[0]}?" if near else "")
        )


def _check_options(model_type: ModelType, table: Mapping[str, Row]) -> None:
    """Refuse options and dialects that there are none of: what is said of them would never be said.

    Raises:
        MscvtError: The first fault.
    """
    spoken = {
        "refused": (model_type.refused, table, "options"),
        "noted": (model_type.noted, table, "options"),
        "dialects": (model_type.dialects, table["dialect"].choices, "dialects"),
        "flags": (_dialects_of(model_type.flags), table["dialect"].choices, "dialects"),
    }
    for attribute, (names, known, what) in spoken.items():
        if unknown := sorted(set(names) - set(known)):
            near = nearest(unknown[0], known) or sorted(known)
            raise MscvtError(
                f"{attribute} of {model_type.name!r} speaks of {', '.join(unknown)}, expected names of {what}, "
                f"such as {' or '.join(near[:2])}"
            )


def _dialects_of(flags: Any) -> Sequence[str]:
    """The dialects that flags are told under, where they say so."""
    return tuple(flags) if isinstance(flags, Mapping) else ()
