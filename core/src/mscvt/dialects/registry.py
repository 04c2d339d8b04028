"""The plugins that can be used with the dialects that there are."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint

from mscvt.dialects.options import Options
from mscvt.plugins import registry
from mscvt.plugins.registry import Registry


def load_registry(found: Iterable[EntryPoint] | None = None) -> Registry:
    """Load every plugin; one that speaks of an option or a dialect that there is none of can't be used.

    Args:
        found: The entry points to load; those of the environment by default.
    """
    return registry.load_registry(found, Options)
