"""No family's name stands in the core: neither a model type, nor a distribution, nor what its names begin with."""

import re
from pathlib import Path

import mscvt
from mscvt.plugins.registry import load_registry

OPTIONS = re.compile(r'mamba_(?:state_dim|head_dim|num_groups)|"llama3"|mamba\.mamba_layer_specs mamba_stack_spec')
"""Options, arguments and their values that the training stack calls after a family; its dialect alone knows them."""


def test_core_names_no_installed_family():
    registry = load_registry()
    words = {re.split(r"\d", name)[0].strip("-_") for name in registry.families}
    words |= {plugin.distribution for plugin in registry.plugins}
    assert {"llama", "mscvt-llama"} <= words
    pattern = re.compile(rf"(?<![a-z])(?:{'|'.join(sorted(words))})", re.IGNORECASE)
    found = [
        f"{path.name}:{number}: {line}"
        for path in sorted(Path(mscvt.__file__).parent.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(OPTIONS.sub("", line) if "dialects" in path.parts else line)
    ]
    assert found == []
