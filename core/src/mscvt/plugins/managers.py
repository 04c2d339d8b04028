"""pluggy's managers of plugins: checking what a plugin has, and calling one plugin and the core's defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from inspect import signature
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pluggy

from mscvt.errors import MscvtError
from mscvt.plugins import defaults, hookspecs

PROJECT = "mscvt"
_HOOKABLE = FunctionType, MethodType, staticmethod, classmethod
"""All that pluggy takes for a hook."""
_HOOKS = frozenset(name for name in dir(hookspecs) if name.startswith("mscvt_"))


class _Manager(pluggy.PluginManager):
    """Knows what of a module is marked; pluggy looks closely at every name in it, two milliseconds for each plugin."""

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> Any:
        """What a specification is marked with, or None."""
        return (
            super().parse_hookspec_opts(module_or_class, name) if self._may_be_marked(module_or_class, name) else None
        )

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """What an implementation is marked with, or None."""
        return super().parse_hookimpl_opts(plugin, name) if self._may_be_marked(plugin, name) else None

    def _may_be_marked(self, owner: Any, name: str) -> bool:
        if not isinstance(owner, ModuleType):
            return True
        value = vars(owner).get(name)
        return isinstance(value, _HOOKABLE) and any(hasattr(value, f"{PROJECT}_{kind}") for kind in ("impl", "spec"))


def get_plugin_manager() -> pluggy.PluginManager:
    """A plugin manager that knows the hooks and the core's defaults, and no family."""
    manager = _Manager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(defaults, name="mscvt-defaults")
    return manager


class Hooks(Mapping[str, Any]):
    """The hook callers that reach one plugin and the core's defaults; no other plugin can get between them.

    They are made when the first is asked for: a conversion asks one plugin of all that are there.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getitem__(self, name: str) -> Any:
        return self._callers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._callers)

    def __len__(self) -> int:
        return len(self._callers)

    @cached_property
    def _callers(self) -> Mapping[str, Any]:
        manager = get_plugin_manager()
        manager.register(self._module)
        return {name: getattr(manager.hook, name) for name in sorted(_HOOKS)}


def implemented(module: Any) -> frozenset[str]:
    """The names of what a plugin has that looks like a hook."""
    return frozenset(name for name in dir(module) if name.startswith("mscvt_") and callable(getattr(module, name)))


def _wrong_argument(module: Any) -> str | None:
    """The first argument of a plugin's hooks that there is none of, and those that there are."""
    for name in sorted(implemented(module) & _HOOKS):
        known, taken = (tuple(signature(getattr(one, name)).parameters) for one in (hookspecs, module))
        if unknown := [argument for argument in taken if argument not in known]:
            return f"{name} takes {unknown[0]}, and is given {', '.join(known) or 'nothing'}"
    return None


def check_hooks(module: Any, manager: pluggy.PluginManager) -> Callable[[], Any]:
    """Refuse a plugin that can't be called.

    Args:
        module: A plugin.
        manager: What it is registered with, to see whether it can be.

    Returns:
        Its `mscvt_model_types`.

    Raises:
        MscvtError: Where the plugin is made for another version, or has hooks that nothing would ever call.
    """
    made_for = getattr(module, "MSCVT_API", None)
    if made_for != hookspecs.API_VERSION:
        stated = "states no version" if made_for is None else f"made for version {made_for}"
        raise MscvtError(
            f"{stated} of mscvt's plugin interface, this is version {hookspecs.API_VERSION}; "
            f"a plugin states it as MSCVT_API = {hookspecs.API_VERSION}"
        )
    try:
        manager.register(module, name=str(id(module)))  # two plugins may have one name
    except pluggy.PluginValidationError as error:
        raise MscvtError(f"has a hook with a wrong signature: {_wrong_argument(module) or error}") from None
    hooks = {caller.name for caller in manager.get_hookcallers(module) or ()}
    written = implemented(module)
    if unknown := sorted((hooks | written) - _HOOKS):
        raise MscvtError(f"has unknown hooks: {', '.join(unknown)}; the hooks are {', '.join(sorted(_HOOKS))}")
    if unmarked := sorted(written - hooks):
        raise MscvtError(f"has hooks that are not marked with @hookimpl: {', '.join(unmarked)}")
    if "mscvt_model_types" not in hooks:
        raise MscvtError("must implement mscvt_model_types")
    every = manager.hook.mscvt_model_types.get_hookimpls()
    return next(each.function for each in every if each.plugin is module)
