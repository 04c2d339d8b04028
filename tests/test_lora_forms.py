"""Adapters of every form become factors, and adapters again, that compute the same; others are refused by name."""

from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import load_file

import support_table
from command_line import run_main
from golden_cases import huggingface_digests
from lora_cases import merged, save_adapter
from mscvt.formats.peft.config import read_adapter_config
from mscvt.formats.peft.names import factor_names
from mscvt.plugins.registry import load_registry
from mscvt.testing import digest, save_huggingface, shards_in, source_tensors

SUITES = {s.model_type: s for s in sorted(support_table.suites(), key=lambda suite: len(suite.variants()))}
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "peft_version": "0.21.2"}
ATTENTION = "model.layers.{}.self_attn.{}_proj"
SPLIT = ("--tp", "2", "--pp", "2")
GROUPED = (*SPLIT, "--ep", "2", "--moe-grouped-gemm")


@dataclass(frozen=True)
class Form:
    """An adapter, and the factors that it becomes."""

    model_type: str
    modules: dict
    """Module -> its rank."""
    args: dict
    """What the factors' args record."""
    config: dict = field(default_factory=dict)
    split: tuple = SPLIT
    without: str = "\0"
    """What no key of the factors holds."""


def attention(parts, layers=(0, 1, 2, 3)):
    return {ATTENTION.format(layer, part): 2 for layer in layers for part in parts}


def experts(parts, numbers, layer=1):
    return {f"model.layers.{layer}.mlp.experts.{n}.{part}_proj": 2 for n in numbers for part in parts}


LATENT = "model.layers.{}.self_attn.{}"
FORMS = {
    "all of some layers": Form("qwen3", attention("qkvo", (1, 2)), {"lora_r": 6, "lora_alpha": 12}),
    "another rank": Form(
        "qwen3",
        {**attention("qo"), "model.layers.3.self_attn.o_proj": 5},
        {"lora_r": 5, "lora_alpha": 10},
        {"rank_pattern": {"layers.3.self_attn.o_proj": 5}, "alpha_pattern": {"layers.3.self_attn.o_proj": 10}},
    ),
    "half the scale": Form(
        "qwen3", attention("qo"), {"lora_r": 2, "lora_alpha": 4}, {"alpha_pattern": {"layers.2.self_attn.q_proj": 2}}
    ),
    "rslora": Form(
        "qwen3",
        dict.fromkeys(attention("o"), 4),
        {"lora_r": 4, "lora_alpha": 12},
        {"r": 4, "lora_alpha": 6, "use_rslora": True},
    ),
    "packed": Form("phi3.5", {"model.layers.0.self_attn.qkv_proj": 2}, {"lora_r": 2, "lora_alpha": 4}),
    "some experts": Form(
        "qwen3-moe",
        experts(("gate", "up"), (1, 6)) | experts(("gate",), (3,)),
        {"lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["linear_fc1"]},
        split=GROUPED,
    ),
    "experts one by one": Form(
        "qwen3-moe",
        experts(("up", "down"), (0, 7)),
        {"lora_r": 2, "lora_alpha": 4},
        split=(*SPLIT, "--ep", "4", "--etp", "1"),
    ),
    "attention alone beside grouped experts": Form("qwen3-moe", attention("o"), {"lora_r": 2}, split=GROUPED),
    "grouped experts beside other MLPs": Form(
        "deepseek3",
        experts(("gate", "up", "down"), (0, 3), layer=2) | {LATENT.format(2, "o_proj"): 2},
        {"lora_r": 4, "lora_target_modules": ["linear_proj"]},
        split=GROUPED,
        without="mlp.linear_fc",
    ),
    "grouped experts alone beside other MLPs": Form(
        "deepseek3",
        experts(("down",), (0, 3), layer=2),
        {"lora_r": 2, "lora_target_modules": ["linear_fc2"]},
        split=GROUPED,
        without="mlp.linear_fc1",
    ),
    "divided up projections": Form(
        "deepseek3",
        {LATENT.format(layer, part): 2 for layer in (0, 2) for part in ("q_b_proj", "kv_b_proj")},
        {"lora_r": 2},
        split=(*GROUPED, "--mla-mm-split"),
    ),
}


def run(*words):
    outcome = run_main(*words)
    assert outcome.code == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small models, each written once in both formats: the folders, and the tensors."""
    made = {}

    def make(model_type, split):
        if (model_type, split) not in made:
            family, config = load_registry().family(model_type), SUITES[model_type].config
            tensors = {
                name: tensor + 0 for name, tensor in source_tensors(family, config).items()
            }  # no zero is negative
            folder = tmp_path_factory.mktemp("model")
            save_huggingface(folder / "hf", config, tensors)
            run("hf2mg", "--load-dir", folder / "hf", "--save-dir", folder / "mg", *split)
            made[model_type, split] = folder / "hf", folder / "mg", tensors
        return made[model_type, split]

    return make


def adapter_of(modules, tensors):
    """Factors of modules, each with an A of its own."""
    random = torch.Generator().manual_seed(3)
    found = {}
    for module, rank in modules.items():
        (a, b), (rows, columns) = factor_names(f"{module}.weight"), tensors[f"{module}.weight"].shape
        found |= {a: torch.randn(rank, columns, generator=random), b: torch.randn(rows, rank, generator=random)}
    return {name: tensor.bfloat16() for name, tensor in found.items()}


def merged_with(tensors, factors, folder):
    """Digests of a model's tensors with the factors of an adapter merged, whose scales its configuration says."""
    config, found = read_adapter_config(folder), {}
    for name, tensor in tensors.items():
        a, b = factor_names(name)
        scale = config.scale_of(name.removesuffix(".weight"))
        found[name] = digest(merged(tensor, factors[a], factors[b], scale) if a in factors else tensor)
    return found


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_adapter_as_factors_and_exported_again_computes_the_same(form, models, tmp_path):
    hf, base, tensors = models(form.model_type, form.split)
    factors = adapter_of(form.modules, tensors)
    adapter = save_adapter(tmp_path / "adapter", {**PLAIN, **form.config}, factors)
    of_adapter = ["--lora-load", adapter, "--save-lora-to-mg", "--save-dir", tmp_path / "factors"]
    said = run("hf2mg", "--load-dir", hf, *of_adapter, *form.split).out
    assert f"--lora-load {tmp_path / 'factors'}" in said
    shards = shards_in(tmp_path / "factors").values()
    args = vars(next(iter(shards))["args"])
    assert not any(form.without in key for shard in shards for key in shard["model"])
    assert {name: args[name] for name in form.args} == form.args
    of_base = ["mg2hf", "--load-dir", base, "--lora-load", tmp_path / "factors"]
    run(*of_base, "--save-dir", tmp_path / "back")
    back = huggingface_digests(tmp_path / "back")
    expected = {name: value for name, value in merged_with(tensors, factors, adapter).items() if name in back}
    assert back == expected
    run(*of_base, "--save-lora-to-hf", "--save-dir", tmp_path / "exported")
    exported = load_file(tmp_path / "exported" / "adapter_model.safetensors")
    again = merged_with(tensors, exported, tmp_path / "exported")
    assert {name: again[name] for name in back} == expected
