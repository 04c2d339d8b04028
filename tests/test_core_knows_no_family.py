"""No family's name stands in the core: neither a model type, nor a distribution, nor what its names begin with."""

import re
from pathlib import Path

import mscvt
from mscvt.plugins.registry import load_registry


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
        if pattern.search(line)
    ]
    assert found == []
