"""Dataclasses as the standard library's, made quicker.

`dataclasses` compiles six functions for a frozen class, which takes 1.3 ms on Python 3.11, and a plan of a small model
has 70 such classes. All but `__init__` are the same for every class, up to the names of its fields, and `__init__` is
compiled when the first record of a class is made: a command makes none of half of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(
        *, frozen: bool = False, slots: bool = False, eq: bool = True, kw_only: bool = False
    ) -> Callable[[type[Any]], type[Any]]:
        """Make dataclasses quickly; to type checkers this is `dataclasses.dataclass`."""

        def made(cls: type[Any]) -> type[Any]:
            # only what is frozen may inherit from what is frozen, and the other way round
            is_heir = frozen and any(dataclasses.is_dataclass(base) for base in cls.__bases__)
            plain = dataclasses.dataclass(
                init=False, repr=False, eq=False, frozen=is_heir, slots=slots, kw_only=kw_only
            )(cls)
            plain.__dataclass_params__.frozen = frozen
            return _with_methods(plain, frozen=frozen, slots=slots, eq=eq)

        return made


class _Made:
    """Stands for what a factory makes, in a signature."""

    def __repr__(self) -> str:
        return "<factory>"


_MADE = _Made()


def _with_methods(cls: type[Any], *, frozen: bool, slots: bool, eq: bool) -> type[Any]:
    fields = dataclasses.fields(cls)
    methods: dict[str, Any] = {"__init__": _Unmade(cls), "__repr__": _repr([each.name for each in fields if each.repr])}
    if eq:
        methods |= _comparison(fields)
    if frozen:
        methods |= {"__setattr__": _refuse_assignment, "__delattr__": _refuse_deletion}
    elif eq:
        methods["__hash__"] = None  # what changes has no place in a table
    if slots and frozen:
        methods |= {"__getstate__": _state, "__setstate__": _take_state}
    for name, method in methods.items():
        if name not in vars(cls):
            setattr(cls, name, method)
    return cls


class _Unmade:
    """Stands for the `__init__` of a class until somebody asks for it."""

    def __init__(self, owner: type[Any]) -> None:
        self.owner = owner

    def __get__(self, record: Any, _: type[Any]) -> Callable[..., None]:
        init = self.owner.__init__ = _init(self.owner, dataclasses.fields(self.owner))
        return init if record is None else init.__get__(record)


def _init(cls: type[Any], fields: Sequence[Field[Any]]) -> Callable[..., None]:
    """`__init__`, which has to be compiled, as its parameters are those of no other class."""
    scope: dict[str, Any] = {"_set": object.__setattr__, "_MADE": _MADE}
    parameters: dict[bool, list[str]] = {False: [], True: []}
    lines = []
    for each in fields:
        name, value = each.name, each.name
        has_default = each.default is not MISSING or each.default_factory is not MISSING
        if each.default is not MISSING:
            scope[f"_default_{name}"] = each.default
        elif each.default_factory is not MISSING:
            scope[f"_default_{name}"], scope[f"_make_{name}"] = _MADE, each.default_factory
            value = f"_make_{name}() if {name} is _MADE else {name}" if each.init else f"_make_{name}()"
        if each.init:
            parameters[each.kw_only is True].append(f"{name}=_default_{name}" if has_default else name)
        elif each.default is not MISSING:
            value = f"_default_{name}"
        elif not has_default:
            continue  # what `__post_init__` sets
        lines.append(f"_set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    given = ["self", *parameters[False], *(["*", *parameters[True]] if parameters[True] else [])]
    exec(f"def __init__({', '.join(given)}):\n {'; '.join(lines) or 'pass'}", scope)
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {each.name: each.type for each in fields if each.init} | {"return": None}
    return init


def _repr(names: Sequence[str]) -> Callable[[Any], str]:
    def shown(self: Any) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({values})"

    return recursive_repr()(shown)


def _comparison(fields: Sequence[Field[Any]]) -> dict[str, Callable[..., Any]]:
    compared = _values([each.name for each in fields if each.compare])
    hashed = _values([each.name for each in fields if (each.compare if each.hash is None else each.hash)])

    def equal(self: Any, other: object) -> bool:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    return {"__eq__": equal, "__hash__": lambda self: hash(hashed(self))}


def _values(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives some attributes as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda owner: tuple(getattr(owner, name) for name in names)


def _refuse_assignment(_: Any, name: str, __: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(_: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    """What pickle and copy take; their own way of giving it back assigns to fields."""
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _take_state(self: Any, state: Sequence[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
