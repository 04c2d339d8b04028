"""Tables of options: a frozen dataclass whose fields carry what is to be known of each option.

    @dataclass(frozen=True, slots=True)
    class Options:
        noop_layers: tuple[int, ...] | None = option(default=(), metavar="N,N,...", help="Slots that hold no layer.")

An instance holds what was asked for, and None where nothing was. The same rows make the command line, its help, the
errors, the documentation and the names under which a checkpoint records the values.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, fields, replace
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from mscvt.errors import Faults
from mscvt.errors.nearest import did_you_mean
from mscvt.model.values import KINDS, SWITCH, Kind, shown
from mscvt.records import dataclass

_KEY = "option"
T = TypeVar("T")

FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "moe": "experts (mixture of experts)",
        "mla": "multi-head latent attention",
        "mtp": "multi-token prediction layers",
    }
)
"""The prefix of the roles that a part of a model has -> what it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One option of a table."""

    name: str
    kind: Kind
    is_optional: bool
    """Whether the field's type allows None."""
    help: str
    """One or two short sentences; the documentation shows them too."""
    panel: str = "Running"
    """The section of the help and of the documentation."""
    metavar: str = ""
    default: Any = None
    """The value that holds where nothing was asked for."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Dialect -> the value that holds there instead."""
    dialects: tuple[str, ...] = ()
    """The dialects that have the option; empty where all do."""
    same_as: str | None = None
    """Another option of the table, whose value is the default."""
    unset: str = ""
    """What holds where the option is not given, where the default itself doesn't say it."""
    holds: str = ""
    """What must hold, for the documentation."""
    least: int | None = None
    choices: tuple[str, ...] = ()
    """The values that are allowed; empty where all of the kind are."""
    aliases: tuple[str, ...] = ()
    """Other spellings, with their dashes."""
    recorded: tuple[str, ...] = ()
    """Names in a checkpoint's `args` that hold the value, the first of which is written."""
    feature: str | None = None
    """A key of `FEATURES` that a model must have, or None for every model."""

    @property
    def flag(self) -> str:
        """How the option is written on the command line."""
        return flag(self.name)

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings, the option's own first."""
        return (self.flag, *self.aliases)

    @property
    def is_switch(self) -> bool:
        """Whether the option takes no value."""
        return self.kind is SWITCH

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return not self.is_optional and self.default is None

    @property
    def otherwise(self) -> str:
        """What holds where the option is not given, in words; empty where there is nothing to say."""
        if self.is_required:
            return "required"
        says_nothing = self.default is None or self.default is False or self.default == ()
        others = [f"; {shown(value)} with --dialect {dialect}" for dialect, value in self.defaults.items()]
        return self.unset or ("" if says_nothing else "".join([shown(self.default), *others]))


def option(**details: Any) -> Any:
    """A field of a table of options, which is None where nothing was asked for.

    Args:
        **details: Fields of `Row`, of which `help` is needed.
    """
    return field(default=None, metadata={_KEY: details})


def rows(table: type[Any]) -> Mapping[str, Row]:
    """The rows of a table, by name, in the order in which they are written.

    Raises:
        TypeError: Where a field is no `option`, or its type is none of `KINDS`.
    """
    return _rows(table)  # type: ignore[arg-type]  # a class can be hashed


@cache
def _rows(table: type[Any]) -> Mapping[str, Row]:
    found = {}
    for entry in fields(table):
        details = entry.metadata.get(_KEY)
        kind, is_optional = _kind_of(entry.type, table.__module__)  # type: ignore[arg-type]  # can be hashed
        if details is None or kind is None:
            raise TypeError(f"{table.__name__}.{entry.name}: {entry.type} is no option")
        default = {"default": False} if kind is SWITCH else {}
        found[entry.name] = Row(name=entry.name, kind=kind, is_optional=is_optional, **default | details)
    return MappingProxyType(found)


@cache
def _kind_of(annotation: Any, module: str) -> tuple[Kind | None, bool]:
    """What kind of option a field is, and whether it may be None; worked out once for all fields of one type."""
    hint = eval(annotation, vars(sys.modules[module])) if isinstance(annotation, str) else annotation
    if get_origin(hint) in (Union, UnionType):
        inner = [argument for argument in get_args(hint) if argument is not NoneType]
        return (KINDS.get(inner[0]) if len(inner) == 1 else None), True
    return KINDS.get(hint), False


def flag(name: str) -> str:
    """The command-line spelling of an option's name."""
    return "--" + name.replace("_", "-")


def rows_in(table: type[Any], dialect: str) -> Mapping[str, Row]:
    """The rows of a table that a dialect has."""
    return {name: row for name, row in rows(table).items() if not row.dialects or dialect in row.dialects}


def with_defaults(options: T) -> T:
    """Fill in the default of everything that was not asked for; a table with the row `dialect` has those of its own."""
    table = rows(type(options))
    dialect = (getattr(options, "dialect", None) or table["dialect"].default) if "dialect" in table else ""
    values = {
        name: row.defaults.get(dialect, row.default) for name, row in table.items() if getattr(options, name) is None
    }
    for name, row in table.items():
        source = row.same_as
        if values.get(name, ...) is None and source is not None:
            asked = getattr(options, source)
            values[name] = values[source] if asked is None else asked
    return replace(options, **values)  # type: ignore[type-var]  # a table is a dataclass


def check_values(options: Any, faults: Faults) -> None:
    """Add a fault for every value that no model could have."""
    for row in rows(type(options)).values():
        value, least = getattr(options, row.name), row.least
        if value is None:
            continue
        if least is not None and any(number < least for number in _numbers(value)):
            faults.add(
                f"{row.flag} {shown(value)}: must be at least {least}",
                hint=f"Give {row.flag} a number of at least {least}, or leave it out.",
            )
        if row.choices and value not in row.choices:
            faults.add(
                f"{row.flag} {value}: must be one of {', '.join(row.choices)}",
                hint=did_you_mean(str(value), row.choices) or f"Choose one of these, or leave out {row.flag}.",
            )


def _numbers(value: Any) -> Iterable[int]:
    return value if isinstance(value, tuple) else (value,)


def check_dialect(options: Any, dialect: str, faults: Faults) -> None:
    """Add a fault for every option that was asked for and that the dialect doesn't have."""
    table = rows(type(options))
    for row in table.values():
        value = getattr(options, row.name)
        if value not in (None, row.default) and row.dialects and dialect not in row.dialects:
            given = "" if value is True else f" {shown(value)}"
            faults.add(
                f"{row.flag}{given}: is no option of {table['dialect'].flag} {dialect}, only of "
                f"{' and '.join(row.dialects)}",
                hint=f"Leave out {row.flag}, or choose another dialect.",
            )


def check_refused(options: Any, refused: Mapping[str, str], model_type: str, faults: Faults) -> None:
    """Add a fault for every option that was asked for and that models of this type can't have.

    Args:
        options: What was asked for.
        refused: Name of an option -> why.
        model_type: The model type.
        faults: Where they are added.
    """
    for flag_, said in _said_of(options, refused, model_type):
        faults.add(said, hint=f"Leave out {flag_}.")


def notes_on(options: Any, noted: Mapping[str, str], model_type: str) -> tuple[str, ...]:
    """What there is to say of the options that were asked for, one line each.

    Args:
        options: What was asked for.
        noted: Name of an option -> what there is to say of it.
        model_type: The model type.
    """
    return tuple(said for _, said in _said_of(options, noted, model_type))


def _said_of(options: Any, sayings: Mapping[str, str], model_type: str) -> Iterator[tuple[str, str]]:
    """Yield the flag of each option that was asked for, and what is said of it."""
    table = rows(type(options))
    for name, saying in sayings.items():
        row, value = table[name], getattr(options, name)
        if value not in (None, row.default):
            given = "" if value is True else f" {shown(value)}"
            yield row.flag, f"{row.flag}{given}: {model_type} {saying}"


def check_features(options: Any, features: frozenset[str], model_type: str, faults: Faults) -> None:
    """Add a fault for every option that says something about a part that the model doesn't have."""
    table = rows(type(options))
    sources = {row.same_as for row in table.values()} - {None}
    defaults = with_defaults(type(options)(**{name: getattr(options, name) for name in sources if name}))
    for row in table.values():
        value = getattr(options, row.name)
        if row.feature is None or row.feature in features or value is None:
            continue
        if value != getattr(defaults, row.name):
            said = "" if value is True else f" {shown(value)}"
            faults.add(
                f"{row.flag}{said}: {model_type} models have no {FEATURES[row.feature]}",
                hint=f"Leave out {row.flag}.",
            )
