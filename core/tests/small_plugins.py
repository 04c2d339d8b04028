"""Plugins of one module, made on the spot, and the smallest model that they can be asked about."""

import re
from types import ModuleType, SimpleNamespace

import pytest

from mscvt import DECODER, ModelType, MscvtError, hookimpl
from mscvt.plugins.registry import load_registry

CONFIG = {
    "model_type": "acme",
    "num_hidden_layers": 4,
    "hidden_size": 8,
    "intermediate_size": 10,
    "num_attention_heads": 2,
    "vocab_size": 6,
}
H = {"num_layers": 4, "hidden_size": 8}
ACME = ModelType("acme", ("acme",))


def registry_of(model_type=ACME, names=DECODER, **hooks):
    """A registry with one plugin; `names` is a table by block or a function, further hooks are functions or answers."""
    module = ModuleType("acme_plugin")
    module.MSCVT_API = 2

    @hookimpl
    def mscvt_model_types():
        return [model_type]

    @hookimpl
    def mscvt_names(block):
        return names(block) if callable(names) else names.get(block)

    module.mscvt_model_types, module.mscvt_names = mscvt_model_types, mscvt_names
    for hook, answer in hooks.items():
        given = answer if callable(answer) else lambda answer=answer: answer
        setattr(module, hook, hookimpl(function_without_arguments(given)))
    metadata = {"METADATA": "Name: mscvt-acme\nVersion: 1.2\n"}
    distribution = SimpleNamespace(read_text=metadata.get)
    point = SimpleNamespace(name="acme", value="acme_plugin", load=lambda: module, dist=distribution)
    return load_registry([point])


def function_without_arguments(given):
    def hook():
        return given()

    return hook


def family_of(**what):
    return registry_of(**what).family("acme")


def raises(hook, what):
    """An error of the hook that names the plugin."""
    return pytest.raises(MscvtError, match="^" + re.escape(f"plugin mscvt-acme 1.2, {hook} for acme: {what}"))
