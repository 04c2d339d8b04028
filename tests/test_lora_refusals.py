"""What of LoRA is refused, by name, before anything is written."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import run_main
from golden_cases import load_case
from lora_cases import CASES, build, save_adapter
from mscvt.testing import shards_in

TRACKER = "latest_checkpointed_iteration.txt"
PREFIX = "base_model.model.model.layers.0.self_attn"
CASE = load_case(CASES / "llama2_tp2_pp2.json")


@dataclass(frozen=True)
class Inputs:
    """The folders of a case, and a place for what is made of them."""

    folder: Path
    scratch: Path

    def __getattr__(self, name):
        return self.folder / name

    def refused(self, *words):
        """Run a command that must end in an error and write nothing; returns what it says."""
        outcome = run_main(*words, "--save-dir", self.scratch / "out")
        assert outcome.code == 1, outcome
        assert not (self.scratch / "out").exists()
        return outcome.err


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    for name in ("hf", "peft", "base", "lora_full", "lora_only"):
        build(CASE, name, folder / name)
    mixture = load_case(CASES / "deepseek3_tp2_pp2_ep2_local.json")
    build(mixture, "lora_full", folder / "mixture")
    return folder


@pytest.fixture
def inputs(built, tmp_path):
    return Inputs(built, tmp_path)


def changed_adapter(inputs, config, tensors):
    """The case's adapter with other settings, and with tensors of other shapes or names besides."""
    said = json.loads((inputs.peft / "adapter_config.json").read_text())
    held = load_file(inputs.peft / "adapter_model.safetensors")
    made = {name: torch.zeros(shape) for name, shape in tensors.items()}
    return save_adapter(inputs.scratch / "adapter", said | config, held | made)


ADAPTERS = {
    "another method": ({"peft_type": "IA3"}, {}, "peft_type is 'IA3', and only LORA can be converted"),
    "DoRA": ({"use_dora": True}, {}, "use_dora is True, which plain LoRA doesn't have"),
    "a vector of DoRA": ({}, {f"{PREFIX}.q_proj.lora_magnitude_vector": (48,)}, "is of DoRA"),
    "biases": ({"bias": "all"}, {}, "bias is 'all'"),
    "a bias": ({}, {f"{PREFIX}.q_proj.lora_B.bias": (48,)}, "q_proj.lora_B.bias is a bias"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, {}, "init_lora_weights is 'pissa_niter_4', which changes"),
    "transposed": ({"fan_in_fan_out": True}, {}, "fan_in_fan_out is True"),
    "layers repeated": ({"layer_replication": [[0, 2]]}, {}, "layer_replication is list"),
    "a setting of the future": ({"use_better_lora": 1}, {}, "use_better_lora is 1, which plain LoRA doesn't have"),
    "a pattern that takes for ever": ({"rank_pattern": {"(a+)+$": 4}}, {}, "rank_pattern has '(a+)+$'"),
    "a pattern that is none": ({"alpha_pattern": {"(": 4}}, {}, "alpha_pattern has '('"),
    "another rank": ({"r": 8}, {}, "has factors of the rank 4, adapter_config.json says 8"),
    "no rank": ({"r": 0}, {}, "r is 0, expected a whole number of at least 1"),
    "a module saved whole": ({"modules_to_save": ["lm_head"]}, {}, "lm_head is saved whole, and there is no such"),
    "an unknown tensor": ({}, {f"{PREFIX}.q_proj.vera_A": (4, 48)}, "q_proj.vera_A is nothing that plain LoRA has"),
    "another prefix": ({}, {"model.layers.0.x.lora_A.weight": (4, 48)}, "doesn't begin with base_model.model."),
    "an adapter's name": (
        {},
        {f"{PREFIX}.q_proj.lora_A.default.weight": (4, 48)},
        "q_proj.lora_A.default.weight has the name of an adapter in it, default",
    ),
    "a model that wraps another": (
        {},
        {f"{PREFIX.replace('layers', 'vlm.layers')}.q_proj.lora_{which}.weight": (4, 48) for which in "AB"},
        "This model calls it model.layers.0.self_attn.q_proj",
    ),
    "A alone": ({}, {f"{PREFIX}.z_proj.lora_A.weight": (4, 48)}, "self_attn.z_proj has no B to its A"),
    "another model": (
        {},
        {f"{PREFIX}.z_proj.lora_A.weight": (4, 48), f"{PREFIX}.z_proj.lora_B.weight": (48, 4)},
        "model.layers.0.self_attn.z_proj is no module of this model",
    ),
    "another size": ({}, {f"{PREFIX}.q_proj.lora_A.weight": (4, 47)}, "does not fit its factors [4, 47] and [48, 4]"),
}


def test_adapter_without_tensors_is_refused(inputs):
    adapter = changed_adapter(inputs, {}, {})
    save_file({}, adapter / "adapter_model.safetensors")
    assert "adapter_model.safetensors: not an adapter that can be converted: has no tensors" in inputs.refused(
        "hf2mg", "--load-dir", inputs.hf, "--lora-load", adapter
    )


@pytest.mark.parametrize(("config", "tensors", "fragment"), ADAPTERS.values(), ids=ADAPTERS.keys())
def test_adapter_that_is_no_plain_lora_of_the_model_is_refused(config, tensors, fragment, inputs):
    adapter = changed_adapter(inputs, config, tensors)
    assert fragment in inputs.refused("hf2mg", "--load-dir", inputs.hf, "--lora-load", adapter)


FACTORS = {
    "a head saved whole": (
        {},
        {"base_model.model.lm_head.weight": (96, 48)},
        [],
        "lm_head.weight: training has no place",
    ),
    "scales that don't fit": ({"alpha_pattern": {"q_proj": 6}}, {}, [], "the quotient is no power of two"),
    "alpha that is not whole": ({"lora_alpha": 0.5}, {}, [], "and training takes whole numbers"),
    "other targets": (
        {},
        {},
        ["--lora-target-modules", "linear_qkv"],
        "the adapter, which changes linear_fc1",
    ),
    "another layout": ({}, {}, ["--transformer-impl", "transformer_engine"], "can't load weights under these names"),
}


@pytest.mark.parametrize(("config", "tensors", "words", "fragment"), FACTORS.values(), ids=FACTORS.keys())
def test_adapter_without_a_form_as_factors_is_refused(config, tensors, words, fragment, inputs):
    adapter = changed_adapter(inputs, config, tensors)
    of_adapter = ["--lora-load", adapter, "--save-lora-to-mg", *words]
    assert fragment in inputs.refused("hf2mg", "--load-dir", inputs.hf, *of_adapter)


COMMANDS = {
    "no factors": (["mg2hf", "--load-dir", "base", "--save-lora-to-hf"], "has no factors"),
    "no weights": (["mg2hf", "--load-dir", "lora_only"], "is not there, only its factors"),
    "two sets of factors": (["mg2hf", "--load-dir", "lora_full", "--lora-load", "lora_only"], "both have factors"),
    "another rank": (["mg2hf", "--load-dir", "lora_full", "--lora-r", "8"], "which have the rank 4"),
    "another alpha": (["mg2hf", "--load-dir", "lora_full", "--lora-alpha", "9"], "whose args record 8"),
    "other targets": (["mg2hf", "--load-dir", "lora_full", "--lora-target-modules", "linear_qkv"], "contradicts"),
    "another layout": (["mg2mg", "--load-dir", "lora_full", "--tp", "1"], "whose layout can't be changed"),
    "factors": (["hf2mg", "--load-dir", "hf", "--lora-load", "base"], "by mg2hf --lora-load"),
    "no adapter": (
        ["hf2mg", "--load-dir", "hf", "--lora-load", "hf"],
        "is no adapter of PEFT, it has no adapter_config",
    ),
    "no folder": (
        ["hf2mg", "--load-dir", "hf", "--lora-load", "of/hub"],
        "of/hub: is no adapter of PEFT, it is not there",
    ),
    "an adapter": (
        ["mg2hf", "--load-dir", "base", "--lora-load", "peft"],
        "is an adapter of PEFT, not a checkpoint of",
    ),
    "nothing to be saved": (["hf2mg", "--load-dir", "hf", "--save-lora-to-mg"], "and no --lora-load that says"),
}


@pytest.mark.parametrize(("words", "fragment"), COMMANDS.values(), ids=COMMANDS.keys())
def test_command_that_contradicts_what_is_there_is_refused(words, fragment, inputs):
    names = {path.name: path for path in inputs.folder.iterdir()}
    assert fragment in inputs.refused(*(names.get(word, word) for word in words))


def rewritten(inputs, name, change):
    """A checkpoint of the case some of whose ranks are changed: `change(rank folder, model)`."""
    source, target = inputs.folder / name, inputs.scratch / name
    for path in sorted(source.rglob("model_optim_rng.pt")):
        state = shards_in(source)[path.parent.name]
        change(path.parent.name, state["model"])
        written = target / path.relative_to(source)
        written.parent.mkdir(parents=True)
        torch.save(state, written)
    (target / "latest_checkpointed_iteration.txt").write_text(
        (source / "latest_checkpointed_iteration.txt").read_text()
    )
    return target


def test_factors_of_a_whole_weight_that_differ_between_ranks_are_named(inputs):
    key = "decoder.layers.0.self_attention.linear_qkv.lora_A.default.weight"

    def drift(rank, model):
        if rank == "mp_rank_01_000_001":
            model[key] = model[key] + 1

    folder = rewritten(inputs, "mixture", drift)
    said = inputs.refused("mg2hf", "--load-dir", folder)
    assert f"{key} (model of rank tp 1, pp 0, ep 1) differs from {key} (model of rank tp 0, pp 0, ep 0)" in said


CHANGES = {
    "a lost B": (
        lambda model, key: model.pop(f"{key}.lora_B.default.weight"),
        "missing: decoder.layers.0.mlp.linear_fc1",
    ),
    "another shape": (
        lambda model, key: model.update({f"{key}.lora_A.default.weight": torch.zeros(4, 47)}),
        "has the shape [4, 47], expected [4, 48] at the rank",
    ),
    "DoRA": (
        lambda model, key: model.update({f"{key}.lora_magnitude_vector.default.weight": torch.zeros(80)}),
        "lora_magnitude_vector.default.weight (model of rank tp 0, pp 0, ep 0) is of DoRA",
    ),
    "MTP": (
        lambda model, key: model.update({"mtp.layers.0.x.lora_A.default.weight": torch.zeros(4, 48)}),
        "training with LoRA has no MTP layers",
    ),
}


@pytest.mark.parametrize(("change", "fragment"), CHANGES.values(), ids=CHANGES.keys())
def test_factors_that_are_damaged_or_of_another_kind_are_named(change, fragment, inputs):
    folder = rewritten(
        inputs,
        "lora_full",
        lambda rank, model: rank.endswith("00_000") and change(model, "decoder.layers.0.mlp.linear_fc1"),
    )
    assert fragment in inputs.refused("mg2hf", "--load-dir", folder)


def test_lower_case_names_are_read(inputs):
    def lower(_, model):
        for key in [key for key in model if "lora_" in key]:
            model[key.replace("lora_A", "lora_a").replace("lora_B", "lora_b")] = model.pop(key)

    folder = rewritten(inputs, "lora_only", lower)
    words = ["--load-dir", folder, "--save-lora-to-hf", "--dry-run"]
    assert run_main("mg2hf", *words, "--save-dir", inputs.scratch / "out").code == 0


def test_vocabulary_grows_with_the_adapters_own_ends(inputs):
    added = dict.fromkeys(("base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"), (104, 48))
    adapter = changed_adapter(inputs, {}, added)
    words = ["--load-dir", inputs.hf, "--lora-load", adapter, "--save-dir", inputs.scratch / "out", "--tp", "2"]
    assert run_main("hf2mg", *words).code == 0
    shard = shards_in(inputs.scratch / "out")["mp_rank_00"]
    assert shard["model"]["output_layer.weight"].shape == (52, 48)
    assert vars(shard["args"])["vocab_size"] == 104


def test_weights_of_torch_save_are_read_as_data(inputs):
    adapter = changed_adapter(inputs, {}, {})
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    words = ["--load-dir", inputs.hf, "--lora-load", adapter, "--save-dir", inputs.scratch / "out", "--dry-run"]
    assert "LoRA: factors of 14 weights, r 4, scale 2" in run_main("hf2mg", *words).out
    save_file({"x": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    assert "x doesn't begin with" in inputs.refused("hf2mg", "--load-dir", inputs.hf, "--lora-load", adapter)
