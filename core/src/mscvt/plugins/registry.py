"""Finding plugins: entry points of the group `mscvt`, loaded one by one, so that a broken one harms nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from types import MappingProxyType
from typing import Any

from mscvt.errors import MscvtError
from mscvt.model.family import matches_every
from mscvt.plugins.family import Family, Plugin
from mscvt.plugins.managers import PROJECT, Hooks, check_hooks, get_plugin_manager, implemented
from mscvt.plugins.model_types import served_types
from mscvt.records import dataclass

GROUP = "mscvt"


@dataclass(frozen=True)
class Registry:
    """All plugins that were found and all model types that can be used."""

    plugins: tuple[Plugin, ...]
    families: Mapping[str, Family]
    contested: Mapping[str, tuple[str, ...]]
    """Model type -> the distributions that claim it, where there is more than one."""

    def family(self, name: str) -> Family:
        """The family that serves a model type.

        Raises:
            MscvtError: Where none does, or more than one claims it.
        """
        if name in self.families:
            return self.families[name]
        if name in self.contested:
            raise MscvtError(
                f"model type {name!r} is claimed by more than one distribution: {', '.join(self.contested[name])}",
                hint="Uninstall all but one of them.",
            )
        self._refuse_broken(name, f"serves the model type {name!r}")
        faults = self._broken()
        raise MscvtError(
            f"unknown model type {name!r}; installed: {', '.join(sorted(self.families)) or 'none'}"
            + (f"; {len(faults)} plugins could not be used" if faults else ""),
            hint="Install the family's plugin (pip install mscvt-...); `mscvt plugins` shows what is there. "
            "`mscvt new-plugin NAME --from DIR` writes one.",
            faults=faults,
        )

    def _broken(self) -> list[str]:
        """The plugins that can't be used, and why."""
        return [f"{p.distribution} {p.version} ({p.entry_point}): {p.error}" for p in self.plugins if p.error]

    def _refuse_broken(self, wanted: str, what: str) -> None:
        """Say first what is wrong with the plugin that a model type was meant for, as far as its name tells.

        Raises:
            MscvtError: Where there is such a plugin and it can't be used.
        """
        for plugin in self.plugins:
            if plugin.error and _plain(wanted) in map(_plain, _meant_for(plugin)):
                raise MscvtError(
                    f"plugin {plugin.distribution} {plugin.version} can't be used, and nothing else {what}: "
                    f"{plugin.error}",
                    hint=f"Mend {plugin.distribution} or install another version; `mscvt plugins` shows all of them.",
                )

    def recognise(self, config: Mapping[str, Any]) -> Family:
        """The one family whose model type a `config.json` names.

        Raises:
            MscvtError: Where no family or more than one matches.
        """
        said = config.get("model_type")
        matching = [
            family
            for _, family in sorted(self.families.items())
            if said in family.model_type.config_model_types and family.matches(config)
        ]
        told_apart = {family.plugin for family in matching if family.model_type.matches is not matches_every}
        matching = [f for f in matching if f.plugin not in told_apart or f.model_type.matches is not matches_every]
        if len(matching) == 1:
            return matching[0]
        if matching:
            names = ", ".join(f"{family.model_type.name} ({family.plugin.called})" for family in matching)
            raise MscvtError(
                f"config.json says model_type {said!r}, which can be {names}", hint="Choose one with --model-type-hf."
            )
        if isinstance(said, str):
            self._refuse_broken(said, f"serves config.json's model_type {said!r}")
        raise MscvtError(
            f"config.json says model_type {said!r}, which no installed plugin claims; "
            f"installed: {', '.join(sorted(self.families)) or 'none'}",
            hint="Install the family's plugin, or choose a compatible type with --model-type-hf; "
            "`mscvt new-plugin NAME --from DIR` writes a plugin."
            if not (broken := self._broken())
            else "Plugins that are installed can't be used: is the one for this model among them?",
            faults=broken,
        )


def _meant_for(plugin: Plugin) -> tuple[str, ...]:
    """The names that a plugin probably serves: its distribution's, its entry point's, and those it says."""
    return (plugin.distribution.removeprefix(f"{PROJECT}-"), plugin.entry_point.partition(" ")[0], *plugin.model_types)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def load_registry(found: Iterable[EntryPoint] | None = None, options: type[Any] | None = None) -> Registry:
    """Load every plugin of the group `mscvt`; those that can't be used are reported, not raised.

    Args:
        found: The entry points to load; those of the environment by default.
        options: The table of options that model types may speak of; by default, nothing is known of these.
    """
    points = entry_points(group=GROUP) if found is None else found
    plugins: list[Plugin] = []
    checking = get_plugin_manager()  # one for all plugins, as nothing is called on it
    loaded: dict[int, Plugin] = {}
    served: dict[str, list[Family]] = {}
    named = ((_distribution(point), point.name, point) for point in points)
    for distribution, name, point in sorted(named, key=lambda entry: entry[:2]):
        plugin = Plugin(*distribution, f"{name} = {point.value}")
        try:
            module = point.load()
            first = loaded.setdefault(id(module), plugin)
            if first is not plugin:
                raise MscvtError(
                    f"{first.distribution} {first.version} ({first.entry_point}) has loaded the same module already"
                )
            types = served_types(check_hooks(module, checking), options, hooks=implemented(module))
        except MscvtError as error:
            plugins.append(replace(plugin, error=str(error)))
            continue
        except (Exception, SystemExit) as error:  # anything at all may go wrong in foreign code
            plugins.append(replace(plugin, error=f"can't be loaded: {type(error).__name__}: {error}"))
            continue
        plugin = replace(plugin, model_types=tuple(model_type.name for model_type in types))
        plugins.append(plugin)
        hooks = Hooks(module)
        for model_type in types:
            served.setdefault(model_type.name, []).append(Family(model_type, plugin, hooks))
    contested = {
        name: tuple(family.plugin.called for family in claims) for name, claims in served.items() if len(claims) > 1
    }
    families = {name: claims[0] for name, claims in sorted(served.items()) if len(claims) == 1}
    shared = _of_configs(families)
    return Registry(
        tuple(_with_clashes(plugin, contested, shared) for plugin in plugins),
        MappingProxyType(families),
        MappingProxyType(contested),
    )


def without_entry_points(plugins: Iterable[Plugin]) -> list[Plugin]:
    """The distributions that are called as plugins are and have no entry point of the group, by which one is found.

    Args:
        plugins: Those that were found.
    """
    found = {_plain(plugin.distribution) for plugin in plugins}
    lost: dict[str, Plugin] = {}
    for distribution in distributions():
        name, version = _said(distribution)
        if _plain(name).startswith(f"{PROJECT}-") and _plain(name) not in found:
            groups = sorted({point.group for point in distribution.entry_points})
            others = f"; its entry points are of {', '.join(groups)}" if groups else ""
            why = f"has no entry point of the group {GROUP!r}, so that nothing finds it{others}"
            lost.setdefault(name, Plugin(name, version, "", error=f"{why}: [project.entry-points.{GROUP}]"))
    return [lost[name] for name in sorted(lost)]


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that declares an entry point."""
    return _said(point.dist) if point.dist else ("(unknown)", "?")


def _said(distribution: Distribution) -> tuple[str, str]:
    """Name and version of a distribution, as far as its metadata says.

    They stand in the head of a mail, of which the standard library's parser would read each line of each plugin's.
    """
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    except UnicodeDecodeError:
        text = ""
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    said = {name.lower(): value.strip() for name, _, value in lines}
    return said.get("name") or "(unknown)", said.get("version") or "?"


def _of_configs(families: Mapping[str, Family]) -> dict[str, list[str]]:
    """Model type -> what of a `config.json` it takes for its own that another distribution's type does too."""
    claims: dict[str, list[Family]] = {}
    for family in families.values():
        for said in family.model_type.config_model_types if family.model_type.matches is matches_every else ():
            claims.setdefault(said, []).append(family)
    shared: dict[str, list[str]] = {}
    for said, claimants in claims.items():
        if len({family.plugin for family in claimants}) > 1:
            types = ", ".join(f"{family.model_type.name} ({family.plugin.called})" for family in claimants)
            for family in claimants:
                shared.setdefault(family.model_type.name, []).append(f"{said!r} can be {types}")
    return shared


def _with_clashes(
    plugin: Plugin, contested: Mapping[str, tuple[str, ...]], shared: Mapping[str, Sequence[str]]
) -> Plugin:
    """With an error where nobody can say whose a model type is, and a note where users have to choose."""
    clashes = [f"{name!r} ({', '.join(contested[name])})" for name in plugin.model_types if name in contested]
    if clashes:
        plugin = replace(plugin, error=f"model type claimed by more than one distribution: {'; '.join(clashes)}")
    notes = dict.fromkeys(
        f"a config.json of model_type {choice}: --model-type-hf chooses"
        for name in plugin.model_types
        for choice in shared.get(name, ())
    )
    return replace(plugin, notes=tuple(notes)) if notes else plugin
