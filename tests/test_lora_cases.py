"""Every case of LoRA through the command line's own entry: all tensors that are written, and no others."""

import json
from argparse import Namespace

import pytest
import torch
from safetensors import safe_open

from command_line import run_main
from golden_cases import load_case
from lora_cases import CASES, all_runs, build
from mscvt.testing import digest

SHORT = {torch.bfloat16: "bf16", torch.float32: "f32"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The inputs of the cases, each built once."""
    made = {}

    def make(stem, name):
        if (stem, name) not in made:
            made[stem, name] = build(load_case(CASES / f"{stem}.json"), name, tmp_path_factory.mktemp(stem) / name)
        return made[stem, name]

    return make


@pytest.mark.parametrize(("stem", "number"), all_runs())
def test_run_of_a_case_writes_exactly_what_is_expected(stem, number, built, tmp_path):
    run, out = load_case(CASES / f"{stem}.json")["runs"][number], tmp_path / "out"
    words = [out if word == "@out" else built(stem, word[1:]) if word[0] == "@" else word for word in run["command"]]
    outcome, expected = run_main(*words), run["expect"]
    if "error" in expected:
        assert outcome.code == 1
        assert expected["error"] in outcome.err
        assert not out.exists()
        return
    assert outcome.code == 0, outcome.err
    if "hf" in expected:
        assert in_safetensors(out / "model.safetensors") == expected["hf"]
    elif "peft" in expected:
        assert in_safetensors(out / "adapter_model.safetensors") == expected["peft"]
        config = json.loads((out / "adapter_config.json").read_text())
        assert {name: config[name] for name in expected["config"]} == expected["config"]
    else:
        shards, args = in_shards(out)
        assert shards == expected["mg"]
        assert {name: args[name] for name in expected.get("args", {})} == expected.get("args", {})


def described(tensor):
    return [list(tensor.shape), SHORT[tensor.dtype], digest(tensor)]


def in_safetensors(path):
    with safe_open(path, framework="pt") as file:
        return {name: described(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118


def in_shards(folder):
    found = {}
    with torch.serialization.safe_globals([Namespace]):
        for path in sorted(folder.rglob("model_optim_rng.pt")):
            state = torch.load(path, weights_only=True)
            found[path.parent.name] = {"model": {key: described(tensor) for key, tensor in state["model"].items()}}
    return found, vars(state["args"])
