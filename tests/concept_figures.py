"""The figures of docs/concepts.md, which are what `mscvt plan` shows of a small model; `make docs` runs this."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path

from command_line import run_main
from mscvt.plugins.registry import load_registry
from mscvt.testing import save_huggingface, source_tensors
from small_configurations import MIXTURE

PAGE = Path(__file__).parents[1] / "docs" / "concepts.md"
_SIZES = {**MIXTURE, "num_hidden_layers": 6, "num_experts": 8, "mlp_only_layers": [0]}
CONFIGS = {"small-moe": _SIZES, "small-tied": {**_SIZES, "tie_word_embeddings": True}}
"""Six layers, the first of them dense, and eight experts."""
_FIGURE = re.compile(r"(?s)(<!-- (\w+): written by `make docs` -->\n\n```text\n\$ mscvt (plan [^\n]*)\n).*?(```\n)")
_PARTS = {"pipeline": r"(?ms)^chunk .*?(?=\n E  )", "experts": r"(?m)(?:^experts .*\n?)+", "way": r"(?s).+"}
"""What a figure shows -> where that is in what is printed."""


def save_models(folder: Path) -> Path:
    """Write the models that the figures are of."""
    family = load_registry().family("qwen3-moe")
    for name, config in CONFIGS.items():
        save_huggingface(folder / name, config, source_tensors(family, config))
    return folder


def render(text: str, folder: Path) -> str:
    """The page, with its figures drawn anew of the models in a folder."""

    def figure(match: re.Match[str]) -> str:
        command = [str(folder / word) if word in CONFIGS else word for word in shlex.split(match[3])]
        outcome = run_main(*command)
        shown = re.search(_PARTS[match[2]], outcome.out)
        if outcome.code or shown is None:
            raise ValueError(f"{match[3]}: {outcome.err or outcome.out}")
        return match[1] + re.sub(r"(?m) +$", "", shown[0].rstrip("\n")) + "\n" + match[4]

    return _FIGURE.sub(figure, text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), save_models(Path(folder))), encoding="utf-8")
