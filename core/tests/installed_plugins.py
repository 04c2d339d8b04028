"""Distributions with a plugin on `sys.path`, with metadata as pip writes it, found as any other is."""

import sys
from contextlib import contextmanager

GOOD = """
from mscvt import DECODER, ModelType, hookimpl

MSCVT_API = 2


@hookimpl
def mscvt_model_types():
    return [ModelType("{name}", config_model_types=("{name}_config",))]


@hookimpl
def mscvt_names(block):
    return DECODER.get(block)
"""
ACME = GOOD.format(name="acme")


@contextmanager
def installing(tmp_path, monkeypatch):
    """What puts distributions with a plugin of some source on `sys.path`; their modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(distribution, source, version="1.2", entry_points=None, metadata=True):
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        if metadata:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[mscvt]\n{entry_points or f'it = {module}'}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    before = set(sys.modules)
    yield installed
    for module in set(sys.modules) - before:
        if (tmp_path / f"{module}.py").exists():
            del sys.modules[module]


def found(registry, distribution):
    return [plugin for plugin in registry.plugins if plugin.distribution == distribution]
