"""The public launch scripts of the original: every command line is taken, and planned at its model's true depth.

`recipes.tsv` has the options of each script. The models have the layers and heads of the published ones, a quarter
of their experts where these are many, and small sizes otherwise; their files have headers and holes in place of
weights. The way back is planned from what a checkpoint of the script before it records.
"""

import csv
import json
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import support_table
from command_line import run_main
from mscvt.cli.command_table import BY_NAME
from mscvt.cli.original import without_single_ranks
from mscvt.cli.words import read_words
from mscvt.description.factors import FactorBook
from mscvt.dialects import mindspeed
from mscvt.dialects.mindspeed import make_args
from mscvt.formats.huggingface.writer import allocate
from mscvt.formats.peft.names import factor_names
from mscvt.jobs.models import model_from_args, model_from_config
from mscvt.jobs.plans import plan_to_adapter, plan_to_huggingface
from mscvt.jobs.request import Request
from mscvt.jobs.trained_factors import read_trained
from mscvt.model.lora import Lora
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.tensors.info import TensorInfo
from mscvt.testing import Options, load_registry, source_shapes

ROWS = list(csv.DictReader(Path(__file__).with_name("recipes.tsv").open(encoding="utf-8"), delimiter="\t"))


@dataclass(frozen=True)
class Size:
    """A published model: which scripts convert it, and what its configuration says."""

    model_type: str
    config: dict
    mark: str = ""
    """A word of the options that tells apart models of one type."""
    without: tuple = field(default=())
    """Fields of the suite's configuration that the published one lacks."""


def decoder(layers, heads, groups, **others):
    return {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": 2,
        "hidden_size": 2 * heads,
        "intermediate_size": 32,
        "vocab_size": 96,
        **others,
    }


def latent(layers, heads, **others):
    return {**decoder(layers, heads, heads), "first_k_dense_replace": 3, "moe_intermediate_size": 32, **others}


SIZES = (
    Size("deepseek32", latent(61, 128, n_routed_experts=256, num_nextn_predict_layers=1), without=("head_dim",)),
    Size(
        "deepseek4",
        {
            "num_hidden_layers": 43,
            "num_attention_heads": 64,
            "n_routed_experts": 256,
            "num_hash_layers": 3,
            "num_nextn_predict_layers": 1,
            "o_groups": 8,
            "compress_ratios": [0, 0, *([4, 128] * 21)[:41], 0],
            "vocab_size": 96,
            "moe_intermediate_size": 32,
        },
    ),
    Size("gemma2", decoder(42, 16, 8)),
    Size("glm45-air", decoder(46, 96, 8, n_routed_experts=128, first_k_dense_replace=1, moe_intermediate_size=32)),
    Size("glm45", decoder(92, 96, 8, n_routed_experts=160, first_k_dense_replace=3, moe_intermediate_size=32)),
    Size(
        "glm5", latent(78, 64, n_routed_experts=256, num_nextn_predict_layers=1), without=("indexer_types", "head_dim")
    ),
    Size("bailing_mini", decoder(20, 16, 4, num_experts=256, first_k_dense_replace=1, moe_intermediate_size=16)),
    Size(
        "bailing_mini",
        decoder(80, 64, 8, num_experts=256, first_k_dense_replace=4, moe_intermediate_size=16),
        mark="--moe-tp-extend-ep",
    ),
    Size("llama2", decoder(32, 32, 32)),
    Size(
        "longcat",
        {
            **latent(28, 64, n_routed_experts=512, zero_expert_num=256),
            "num_layers": 28,
            "num_hidden_layers": 28,
            "ffn_hidden_size": 32,
            "expert_ffn_hidden_size": 32,
        },
        without=("head_dim", "first_k_dense_replace"),
    ),
    Size("magistral", decoder(40, 32, 8)),
    Size("phi3.5", decoder(32, 32, 32), without=("head_dim",)),
    Size("phi3.5-moe", decoder(32, 32, 8, num_local_experts=16), without=("head_dim",)),
    Size("plm", {**decoder(32, 16, 16)}, without=("head_dim",)),
    Size("qwen25", decoder(28, 28, 4), without=("head_dim",)),
    Size("qwen3", decoder(64, 64, 8)),
    Size("qwen3-moe", decoder(94, 64, 4, num_local_experts=128, moe_intermediate_size=32), mark="94,95"),
    Size("qwen3-moe", decoder(62, 96, 8, num_local_experts=160, moe_intermediate_size=32), mark="0,63"),
    Size("qwen3-moe", decoder(48, 32, 4, num_local_experts=128, moe_intermediate_size=32)),
    Size(
        "qwen3-next",
        decoder(48, 16, 2, num_experts=512, num_local_experts=512, moe_intermediate_size=8),
        without=("layer_types",),
    ),
    Size("seed-oss", decoder(64, 80, 8)),
)


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "zero_expert_num")


def size_of(options):
    """The published model that a script is for: one with the script's mark before one without any."""
    words = shlex.split(options)
    model_type = words[words.index("--model-type-hf") + 1]
    fitting = [size for size in SIZES if size.model_type == model_type and (not size.mark or size.mark in words)]
    return max(fitting, key=lambda size: len(size.mark))


def configuration(size):
    suite = next(suite for suite in support_table.suites() if suite.model_type == size.model_type)
    whole = {**suite.config, **size.config}
    whole |= {name: whole[name] // 4 for name in EXPERTS if whole.get(name, 0) > 160}
    return {name: value for name, value in whole.items() if name not in size.without}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Model by model, a folder with its configuration and files with holes in place of weights."""
    made = {}

    def make(size):
        key = (size.model_type, size.mark)
        if key not in made:
            folder = made[key] = tmp_path_factory.mktemp("hf")
            config = configuration(size)
            (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
            family = load_registry().family(size.model_type)
            tensors = {name: ("BF16", shape) for name, shape in source_shapes(family, config).items()}
            allocate(folder / "model.safetensors", tensors)
        return made[key]

    return make


def convert(load, save, load_dir, save_dir, options):
    kinds = ["--load-model-type", load, "--save-model-type", save]
    words = [*shlex.split(options), "--dry-run", "--quiet"]
    return run_main("convert", *kinds, "--load-dir", load_dir, "--save-dir", save_dir, *words)


LORA = [row for row in ROWS if "--lora-" in row["options"]]
TO_MEGATRON = [row for row in ROWS if row["direction"] == "hf2mg"]
BACK = [row for row in ROWS if row["direction"] == "mg2hf" and row not in LORA]
NOT_SAVED = {"glm45-air": "--mtp-num-layers 1"}
"""Options of a way back that the way there of the same model lacks."""


def script(row):
    return f"{row['script']}-{ROWS.index(row)}"


@pytest.mark.parametrize("row", TO_MEGATRON, ids=script)
def test_script_towards_megatron_is_planned_at_the_true_depth(row, sources, tmp_path):
    outcome = convert("hf", "mg", sources(size_of(row["options"])), tmp_path / "mg", row["options"])
    assert outcome.code == 0, outcome.err
    assert "every byte is accounted for" in outcome.out


@pytest.mark.parametrize("row", BACK, ids=script)
def test_script_towards_huggingface_is_planned_from_what_a_checkpoint_records(row):
    there = [other for other in ROWS[: ROWS.index(row)] if other["family"] == row["family"] and other in TO_MEGATRON][
        -1
    ]
    given = f"{there['options']} {NOT_SAVED.get(row['family'], '')}"
    config, registry = configuration(size_of(there["options"])), load_registry()
    family = registry.family(size_of(there["options"]).model_type)
    saved = model_from_config(family, config, options_of("mg", given), "config.json")
    args = make_args(family, saved.h, saved.options, saved.kept, ())
    words = row["options"].replace("--hf-dir ./origin_hf_cfg", "")
    read = model_from_args(args, None, Request(Path(), options_of("hf", words)), registry)
    shards = {name: TensorInfo("BF16", shape, 0, 0) for name, shape in ByHuggingFace(read.description).expected.items()}
    plan = plan_to_huggingface(read.description, shards)
    expected = {name for name in source_shapes(family, config) if name not in saved.description.left_out}
    assert {name for file in plan.files for name in file.tensors} == expected


def read_script(save, options):
    kinds = ["--load-model-type", "mg" if save == "hf" else "hf", "--save-model-type", save]
    folders = ["--load-dir", "a", "--save-dir", "b"]
    given = read_words(BY_NAME["convert"], [*kinds, *folders, *shlex.split(options)])
    assert given.error is None, given.error
    return given


def options_of(save, options):
    given = read_script(save, options)
    values = without_single_ranks(given.values)[0] if save == "hf" else given.values
    return replace(given, values=values).asked(Options)


@pytest.mark.parametrize("row", LORA, ids=script)
def test_script_with_lora_is_planned_from_what_a_training_run_saves(row, monkeypatch):
    given = read_script("hf", row["options"])
    there = next(other for other in ROWS if other["family"] == row["family"] and other in TO_MEGATRON)
    config, registry = configuration(size_of(there["options"])), load_registry()
    family = registry.family(size_of(there["options"]).model_type)
    saved = model_from_config(family, config, options_of("mg", there["options"]), "config.json")
    lora = given.asked(Lora)
    args = {**make_args(family, saved.h, saved.options, saved.kept, ()), "lora_alpha": lora.lora_alpha}
    args |= {"lora_r": lora.lora_r, "lora_target_modules": [*lora.lora_target_modules]}
    read = model_from_args(args, None, Request(Path(), options_of("hf", row["options"])), registry)
    book = FactorBook(mindspeed.lora.factor_keys, factor_names)
    targets = [
        w for w in read.description.parameters if mindspeed.lora.target_module(w.key) in lora.lora_target_modules
    ]
    ranks = {w: lora.lora_r for w in targets if book.units(w.layout) and mindspeed.lora.factor_keys(w.key)}
    described = book.describe(read.description, book.as_trained(read.description, ranks))
    factors = {n: TensorInfo("BF16", s, 0, 0) for n, s in ByHuggingFace(described).expected.items()}
    weights = {n: TensorInfo("BF16", s, 0, 0) for n, s in ByHuggingFace(read.description).expected.items()}
    base, trained = (Headers(args, tensors, Path(name)) for name, tensors in (("a", weights), ("b", factors)))
    if lora.lora_load is None:
        base = Headers(args, weights | factors, Path("a"))
    monkeypatch.setattr("mscvt.jobs.trained_factors.open_factors", lambda folder, model: trained)
    found = read_trained(Request(Path(), options_of("hf", row["options"]), lora=lora), read, base)
    merged = plan_to_huggingface(read.description, found.merged().tensors)
    names = {name for file in merged.files for name in file.tensors}
    assert names == {name for name in source_shapes(family, config) if name not in saved.description.left_out}
    adapter = plan_to_adapter(described, found.factors().tensors)
    assert len(adapter.files[0].tensors) == 2 * 7 * config["num_hidden_layers"]


class Headers:
    """A checkpoint that has headers alone."""

    def __init__(self, args, tensors, folder):
        self.args, self.tensors, self.folder, self.files = args, tensors, folder, []
