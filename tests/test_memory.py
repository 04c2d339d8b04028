"""Private memory: bounded by what was asked for, whatever the size of the model. Nothing is timed."""

import json
from pathlib import Path

import pytest

from mscvt.dialects.options import Options
from mscvt.formats.huggingface.safetensors_header import make_header
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.jobs.verify import verify_checkpoints
from mscvt.plugins.registry import load_registry

pytestmark = pytest.mark.usefixtures("no_sync")

HIDDEN = 512
ROWS = {"small": 4_000, "large": 32_000}
"""Rows of the two vocabularies: tensors of 4 and 33 MB."""
BESIDES = 8 << 20
"""Bytes of private memory that a run may take besides its buffers: threads, libraries loaded late, the allocator's."""
OPTIONS = Options(target_tensor_parallel_size=2)


def private():
    """Bytes of private memory of this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) << 10


class Peak:
    """The most private memory that was seen whenever bytes were moved, beyond what there was before."""

    def __init__(self):
        self.before, self.nbytes, self.looks = private(), 0, 0

    def look(self, moved):
        self.looks += 1
        self.nbytes = max(self.nbytes, private() - self.before)


def make_source(folder, rows):
    """A decoder of one layer, whose files are holes."""
    config = {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
        "num_key_value_heads": 4,
        "vocab_size": rows,
        "tie_word_embeddings": False,
    }
    square, layer = (HIDDEN, HIDDEN), "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": (rows, HIDDEN),
        "lm_head.weight": (rows, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    shapes |= {f"{layer}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    shapes |= {f"{layer}self_attn.{name}_proj.weight": square for name in "qkvo"}
    shapes |= {f"{layer}mlp.{name}_proj.weight": square for name in ("gate", "up", "down")}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header, _, size = make_header({name: ("BF16", shape) for name, shape in shapes.items()})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(size)
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """The plugins, when all libraries are loaded that a run needs."""
    registry, folder = load_registry(), tmp_path_factory.mktemp("first")
    run_conversion(
        prepare_to_megatron(Request(make_source(folder / "hf", 16), OPTIONS), registry), folder / "mg", Settings()
    )
    verify_checkpoints(hf=folder / "hf", mg=folder / "mg", registry=registry)
    return registry


@pytest.mark.parametrize("size", ROWS)
@pytest.mark.parametrize("max_memory", [1 << 20, 16 << 20])
def test_private_memory_stays_under_what_was_asked_for(size, max_memory, registry, tmp_path):
    source, megatron = make_source(tmp_path / "hf", ROWS[size]), tmp_path / "mg"
    bound = max_memory + BESIDES

    peak = Peak()
    settings = Settings(workers=2, max_memory=max_memory, progress=peak.look, verify=True)
    run_conversion(prepare_to_megatron(Request(source, OPTIONS), registry), megatron, settings)
    assert peak.looks > 10
    assert peak.nbytes < bound

    peak = Peak()
    settings = Settings(workers=2, max_memory=max_memory, progress=peak.look)
    back = prepare_to_huggingface(Request(megatron, Options(), hf_cfg_dir=source), registry)
    run_conversion(back, tmp_path / "back", settings)
    assert peak.nbytes < bound

    peak = Peak()
    verify_checkpoints(hf=source, mg=megatron, registry=registry, workers=2, max_memory=max_memory, progress=peak.look)
    assert peak.nbytes < bound
