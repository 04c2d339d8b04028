"""Broken, clashing and outdated plugins are reported by distribution, version and cause; the others keep working.

Every plugin here is a distribution on `sys.path`, with metadata as pip writes it, found as any other is.
"""

import json
import subprocess
import sys

import pytest
from installed_plugins import ACME, GOOD, found, installing
from typer.testing import CliRunner

from mscvt.cli.app import app
from mscvt.errors import MscvtError
from mscvt.plugins.managers import get_plugin_manager
from mscvt.plugins.registry import load_registry


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a distribution with a plugin of this source on `sys.path`."""
    with installing(tmp_path, monkeypatch) as installed:
        yield installed


BROKEN = {
    "missing import": ("import acme_engine", "can't be loaded: ModuleNotFoundError: No module named 'acme_engine'"),
    "missing name": (
        "from mscvt import hookimplement",
        "can't be loaded: ImportError: cannot import name 'hookimplement' from 'mscvt'",
    ),
    "syntax": ("def mscvt_names(:", "can't be loaded: SyntaxError: invalid syntax"),
    "exit": ("raise SystemExit('no licence')", "can't be loaded: SystemExit: no licence"),
    "empty": ("", "states no version of mscvt's plugin interface, this is version 2"),
    "another version": (
        ACME.replace("MSCVT_API = 2", "MSCVT_API = 1"),
        "made for version 1 of mscvt's plugin interface, this is version 2",
    ),
    "misspelt hook": (
        ACME + "\n@hookimpl\ndef mscvt_layer(hyperparameters):\n    return []\n",
        "has unknown hooks: mscvt_layer; the hooks are mscvt_layers, mscvt_model_types, mscvt_names, "
        "mscvt_placement, mscvt_split_rules",
    ),
    "misspelt and unmarked hook": (
        ACME + "\ndef mscvt_splitrules():\n    return []\n",
        "has unknown hooks: mscvt_splitrules",
    ),
    "unmarked hook": (
        ACME.replace("@hookimpl\ndef mscvt_names", "def mscvt_names"),
        "has hooks that are not marked with @hookimpl: mscvt_names",
    ),
    "wrong argument": (
        ACME.replace("mscvt_names(block)", "mscvt_names(blocks)"),
        "has a hook with a wrong signature: mscvt_names takes blocks, and is given model_type, block, hyperparameters",
    ),
    "no names": (ACME.partition("@hookimpl\ndef mscvt_names")[0], "'acme' has no names: give the model type some, or"),
    "misspelt block": (
        ACME.replace('("acme_config",)', '("acme_config",), names_if={"tie_word_embeddings": {"atention": {}}}'),
        "names of 'acme' have the block 'atention', which no layer has; did you mean attention? Layers with",
    ),
    "misspelt number of experts": (
        ACME.replace(
            'config_model_types=("acme_config",)',
            '("acme_config",), {"num_expert": count("num_experts")}, names={**DECODER, "moe": EXPERTS}',
        ).replace("DECODER,", "DECODER, EXPERTS, count,", 1),
        "names of 'acme' have the block 'moe', and its fields no num_experts, without which no layer has experts; "
        "is it called num_expert?",
    ),
    "no model types": (
        ACME.replace('[ModelType("acme", config_model_types=("acme_config",))]', "[]"),
        "mscvt_model_types must return a list of mscvt.ModelType, it returned []",
    ),
    "None as model types": (
        ACME.replace('[ModelType("acme", config_model_types=("acme_config",))]', "None"),
        "mscvt_model_types must return a list of mscvt.ModelType, it returned None",
    ),
    "text as model types": (
        ACME.replace('[ModelType("acme", config_model_types=("acme_config",))]', '["acme"]'),
        "mscvt_model_types must return a list of mscvt.ModelType, it returned ['acme']",
    ),
    "one model type twice": (
        ACME.replace("    return [", "    return 2 * ["),
        "mscvt_model_types returns more than one model type named acme",
    ),
    "model types fail": (
        ACME.replace("    return [ModelType", "    return 1 / 0, [ModelType"),
        "can't be loaded: ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize(("source", "cause"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_plugin_is_reported_and_the_others_keep_working(source, cause, install):
    before = load_registry()
    install("mscvt-acme", source)
    install("mscvt-zenith", GOOD.format(name="zenith"))
    registry = load_registry()
    (broken,) = found(registry, "mscvt-acme")
    assert (broken.version, broken.entry_point, broken.model_types) == ("1.2", "it = mscvt_acme", ())
    assert broken.error.startswith(cause)
    assert len(broken.error.splitlines()) == 1
    assert registry.families.keys() == before.families.keys() | {"zenith"}
    assert (
        registry.family("zenith").names(["attention"], {})["norm.input"]
        == "model.layers.{layer}.input_layernorm.weight"
    )
    with pytest.raises(
        MscvtError, match=r"mscvt-acme 1\.2 can't be used, and nothing else serves the model type 'acme'"
    ) as caught:
        registry.family("acme")
    assert broken.error in str(caught.value)


def test_interrupt_while_a_plugin_loads_is_passed_on(install):
    install("mscvt-acme", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_registry()


def test_config_that_nobody_claims_says_what_is_installed(install):
    install("mscvt-acme", ACME)
    with pytest.raises(MscvtError, match=r"model_type 'other', which no installed plugin .*: .*\bacme\b") as caught:
        load_registry().recognise({"model_type": "other"})
    assert "`mscvt new-plugin NAME --from DIR` writes a plugin" in caught.value.hint


def test_module_that_two_entry_points_name_is_loaded_once(install):
    install("mscvt-acme", ACME, entry_points="first = mscvt_acme\nsecond = mscvt_acme")
    registry = load_registry()
    first, second = found(registry, "mscvt-acme")
    assert (first.model_types, first.error) == (("acme",), None)
    assert second.error == "mscvt-acme 1.2 (first = mscvt_acme) has loaded the same module already"
    assert registry.family("acme").names(["model"], {})["head"] == "lm_head.weight"


@pytest.mark.parametrize("value", ["mscvt_acme:plugin", "no module at all!", "mscvt_acme:"])
def test_entry_point_that_leads_nowhere_is_reported(value, install):
    install("mscvt-acme", ACME, entry_points=f"it = {value}")
    (plugin,) = found(load_registry(), "mscvt-acme")
    assert plugin.error.startswith("can't be loaded: ")


METADATA = {
    None: ("(unknown)", "?"),
    b"Name: mscvt-\xff\nVersion: 1.2\n": ("(unknown)", "?"),
    b"Version: 1.2\n\nName: no\n": ("(unknown)", "1.2"),
    b"NAME: Acme\r\nversion:3\r\n\r\nVersion: 9\r\n": ("Acme", "3"),
}


@pytest.mark.parametrize(("metadata", "expected"), METADATA.items())
def test_distribution_serves_whatever_its_metadata_says(install, tmp_path, metadata, expected):
    install("mscvt-acme", ACME, metadata=False)
    if metadata is not None:
        (tmp_path / "mscvt_acme-1.2.dist-info" / "METADATA").write_bytes(metadata)
    plugin = load_registry().family("acme").plugin
    assert (plugin.distribution, plugin.version) == expected


def test_nothing_installed_gives_an_error_that_says_how_to_install():
    registry = load_registry([])
    assert (registry.plugins, registry.families) == ((), {})
    with pytest.raises(MscvtError, match="unknown model type 'llama2'; installed: none") as caught:
        registry.family("llama2")
    assert "pip install" in caught.value.hint
    assert "`mscvt new-plugin NAME --from DIR` writes one." in caught.value.hint


def test_plugin_manager_is_made_anew_each_time():
    assert get_plugin_manager() is not get_plugin_manager()


def test_plugins_command_lists_distributions_that_declare_no_entry_point_of_the_group(install, tmp_path):
    install("mscvt-acme", ACME)
    install("mscvt-zenith", GOOD.format(name="zenith"))
    (tmp_path / "mscvt_acme-1.2.dist-info/entry_points.txt").write_text("[msvct]\nacme = mscvt_acme\n")
    shown = CliRunner().invoke(app, ["plugins"], catch_exceptions=False).stdout.splitlines()
    start = shown.index("mscvt-acme 1.2: no plugin")
    assert shown[start + 1] == (
        "  error: has no entry point of the group 'mscvt', so that nothing finds it; its entry points are of msvct: "
        "[project.entry-points.mscvt]"
    )
    assert "mscvt-zenith 1.2: zenith" in shown
    (tmp_path / "mscvt_acme-1.2.dist-info/entry_points.txt").unlink()
    as_json = CliRunner().invoke(app, ["plugins", "--json"], catch_exceptions=False)
    (listed,) = [one for one in json.loads(as_json.stdout)["plugins"] if one["distribution"] == "mscvt-acme"]
    assert listed["error"]["message"] == (
        "has no entry point of the group 'mscvt', so that nothing finds it: [project.entry-points.mscvt]"
    )


def test_plugins_command_lists_what_works_and_what_does_not(install):
    install("mscvt-acme", BROKEN["exit"][0])
    install("mscvt-zenith", GOOD.format(name="zenith"), version="4.5")
    shown = CliRunner().invoke(app, ["plugins"], catch_exceptions=False)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    start = lines.index("mscvt-acme 1.2: it = mscvt_acme")
    assert lines[start + 1] == "  error: can't be loaded: SystemExit: no licence"
    assert "mscvt-zenith 4.5: zenith" in lines
    as_json = CliRunner().invoke(app, ["plugins", "--json"], catch_exceptions=False)
    listed = {plugin["distribution"]: plugin for plugin in json.loads(as_json.stdout)["plugins"]}
    assert listed["mscvt-acme"] == {
        "distribution": "mscvt-acme",
        "version": "1.2",
        "entry_point": "it = mscvt_acme",
        "model_types": [],
        "error": {"message": "can't be loaded: SystemExit: no licence", "hint": None, "faults": []},
        "notes": [],
    }
    assert (listed["mscvt-zenith"]["model_types"], listed["mscvt-zenith"]["error"]) == (["zenith"], None)


def test_loading_plugins_does_not_import_torch():
    code = "import sys, mscvt.plugins.registry as r; r.load_registry(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_object_of_a_module_is_a_plugin_too(install):
    as_object = """
from mscvt import DECODER, ModelType, hookimpl


class Acme:
    MSCVT_API = 2

    @hookimpl
    def mscvt_model_types(self):
        return [ModelType("acme", ("acme_config",), names=DECODER)]


plugin = Acme()
"""
    install("mscvt-acme", as_object, entry_points="it = mscvt_acme:plugin")
    family = load_registry().family("acme")
    assert (family.plugin.entry_point, family.plugin.error) == ("it = mscvt_acme:plugin", None)


def test_plugins_that_are_called_the_same_serve_side_by_side(install):
    as_class = """
from mscvt import DECODER, ModelType, hookimpl


class Plugin:
    MSCVT_API = 2

    @staticmethod
    @hookimpl
    def mscvt_model_types():
        return [ModelType("{name}", ("{name}_config",), names=DECODER)]
"""
    for name in ("acme", "zenith"):
        install(f"mscvt-{name}", as_class.format(name=name), entry_points=f"it = mscvt_{name}:Plugin")
    registry = load_registry()
    for name in ("acme", "zenith"):
        assert registry.family(name).plugin.distribution == f"mscvt-{name}"
        assert registry.family(name).names(("model",), {})["head"] == "lm_head.weight"


def test_hooks_of_a_plugin_do_not_reach_another(install):
    install("mscvt-acme", ACME)
    install("mscvt-zenith", GOOD.format(name="zenith") + "\n@hookimpl\ndef mscvt_split_rules():\n    return 7\n")
    registry = load_registry()
    assert registry.family("acme").rules({}, None, ()) == ()
    with pytest.raises(MscvtError, match=r"plugin mscvt-zenith 1\.2, mscvt_split_rules for zenith: it returned 7"):
        registry.family("zenith").rules({}, None, ())
    assert sorted(registry.family("acme").hooks) == sorted(registry.family("zenith").hooks)
    assert len(registry.family("acme").hooks) == 5
