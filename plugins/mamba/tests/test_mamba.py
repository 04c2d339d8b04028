"""Mamba-2: the contract, cuts of stacked pieces, the form of the authors, and sizes that are given."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM

from mscvt import MscvtError
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.jobs.verify import verify_checkpoints
from mscvt.testing import (
    FamilyContract,
    Options,
    content,
    contents_in,
    hf2mg,
    load_registry,
    mg2hf,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "model_type": "mamba2",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 42,
    "expand": 2,
    "head_dim": 7,
    "num_heads": 12,
    "n_groups": 4,
    "state_size": 10,
    "conv_kernel": 3,
    "chunk_size": 16,
    "vocab_size": 90,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
}
AUTHORS = {
    "d_model": 42,
    "n_layer": 4,
    "vocab_size": 85,
    "pad_vocab_size_multiple": 16,
    "tie_embeddings": True,
    "ssm_cfg": {"layer": "Mamba2", "headdim": 7, "d_state": 10, "ngroups": 4, "d_conv": 3},
}


PADDED = Options(target_tensor_parallel_size=4, target_pipeline_parallel_size=2, make_vocab_size_divisible_by=2)


@pytest.mark.parametrize(("version", "convolution"), [("0.18", "conv1d."), (None, "conv1d_")])
def test_names_of_megatron_core_have_the_norm_in_the_projection(version, convolution, tmp_path):
    tensors = source_tensors(load_registry().family("mamba2"), CONFIG)
    hf = save_huggingface(tmp_path / "hf", CONFIG, tensors)
    options = Options(dialect="megatron", target_tensor_parallel_size=2, megatron_core_version=version)
    there = hf2mg(hf, tmp_path / "mg", options)
    for state in shards_in(tmp_path / "mg").values():
        weights = {key for key, value in state["model"].items() if value is not None}
        mixer = {key.split("mixer.")[1] for key in weights if key.startswith("decoder.layers.3.")}
        assert mixer == {*(name.replace("conv1d.", convolution) for name in MIXER), "in_proj.layer_norm_weight"}
        assert "decoder.final_norm.weight" in weights
        states = {key for key, value in state["model"].items() if value is None and ".3." in key}
        assert states == {f"decoder.layers.3.mixer.{name}._extra_state" for name in ("in_proj", "out_proj")}
    assert "--hybrid-override-pattern MMMM" in there.training_flags
    mg2hf(tmp_path / "mg", tmp_path / "back")
    assert contents_in(tmp_path / "back") == contents_in(hf)
    with pytest.raises(MscvtError, match="has no state space layers of local modules"):
        hf2mg(hf, tmp_path / "local", Options(dialect="megatron", transformer_impl="local"))


MIXER = ("A_log", "D", "dt_bias", "in_proj.weight", "conv1d.weight", "conv1d.bias", "norm.weight", "out_proj.weight")


class TestMamba2(FamilyContract):
    model_type = "mamba2"
    config = CONFIG
    real = Mamba2Config, Mamba2ForCausalLM
    not_computed = "a state-space model has no attention"
    options = {"tp4_pp2": PADDED}
    differs = ("norm.weight", "decoder.final_norm.weight")


class TestTied(TestMamba2):
    config = {**CONFIG, "tie_word_embeddings": True}
    cases = ("tp2", "pp4")


class TestOneGroup(TestMamba2):
    """As the authors' releases have it."""

    config = {**CONFIG, "n_groups": 1, "expand": 3, "num_heads": 18}
    cases = ("pp4",)
    options = {}


def sources(config=CONFIG):
    return source_tensors(load_registry().family("mamba2"), config)


def request(folder, config, **more):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Request(folder, Options(), model_type="mamba2", **more)


def faults_of(asked):
    with pytest.raises(MscvtError) as caught:
        prepare_to_megatron(asked, load_registry())
    return "\n".join((str(caught.value), *caught.value.faults))


# Layout: z and x have 12 heads of 7 channels, B and C 4 groups of 10 states, dt 12 heads


def test_stacked_pieces_are_each_cut_for_every_rank(tmp_path):
    hf = save_huggingface(tmp_path / "hf", CONFIG, sources())
    hf2mg(hf, tmp_path / "mg", Options(target_tensor_parallel_size=2))
    tensors, second = sources(), shards_in(tmp_path / "mg")["mp_rank_01"]["model"]
    mixer, ours = "backbone.layers.3.mixer.", "decoder.layers.3.mixer."
    z, x, b, c, dt = torch.split(tensors[mixer + "in_proj.weight"], [84, 84, 40, 40, 12])
    expected = torch.cat([z[42:], x[42:], b[20:], c[20:], dt[6:]])
    assert torch.equal(second[ours + "in_proj.weight"], expected)
    for name in ("weight", "bias"):
        x, b, c = torch.split(tensors[f"{mixer}conv1d.{name}"], [84, 40, 40])
        assert torch.equal(second[f"{ours}conv1d.{name}"], torch.cat([x[42:], b[20:], c[20:]]))
    assert torch.equal(second[ours + "out_proj.weight"], tensors[mixer + "out_proj.weight"][:, 42:])
    assert torch.equal(second[ours + "norm.weight"], tensors[mixer + "norm.weight"][42:])
    for name in ("A_log", "D", "dt_bias"):
        assert torch.equal(second[ours + name], tensors[mixer + name][6:])
    for theirs, key in (("layers.3.norm", "layers.3.norm"), ("norm_f", "final_norm")):
        assert torch.equal(second[f"decoder.{key}.weight"], tensors[f"backbone.{theirs}.weight"])


@pytest.mark.parametrize("changes", [{"n_groups": 3}, {"head_dim": 12, "num_heads": 7}], ids=["groups", "heads"])
def test_ranks_that_do_not_divide_groups_or_heads_are_refused(changes, tmp_path):
    asked = request(tmp_path / "hf", {**CONFIG, **changes})
    what = "3 mamba_num_groups" if "n_groups" in changes else "7 mamba_num_heads"
    faults = faults_of(replace(asked, options=Options(target_tensor_parallel_size=2)))
    assert f"{what} are not divisible by --target-tensor-parallel-size 2" in faults


def test_heads_that_contradict_the_width_are_refused(tmp_path):
    said = faults_of(request(tmp_path / "hf", {**CONFIG, "num_heads": 11}))
    assert "expand * hidden_size is 84, and there are 11 heads of 7 channels" in said


# The authors' form


def authors_tensors():
    renamed = {"backbone.embeddings.weight": "backbone.embedding.weight"}
    config = {**CONFIG, "vocab_size": 96, "tie_word_embeddings": True}
    return {renamed.get(name, name): tensor for name, tensor in sources(config).items()}


def test_authors_form_is_read_and_given_back_under_the_names_of_transformers(tmp_path):
    tensors = authors_tensors()
    assert tensors["backbone.embedding.weight"].shape == (96, 42)
    more = {"lm_head.weight": tensors["backbone.embedding.weight"]}
    hf = save_huggingface(tmp_path / "hf", AUTHORS, tensors | more, ending="bin")
    asked = Request(hf, Options(target_tensor_parallel_size=2), model_type="mamba2")
    converted = prepare_to_megatron(asked, load_registry())
    assert not converted.plan.left_out
    hf2mg_as_mamba(asked, tmp_path / "mg")
    assert shards_in(tmp_path / "mg")["mp_rank_00"]["args"].vocab_size == 96
    assert verify_checkpoints(hf=hf, mg=tmp_path / "mg", registry=load_registry()).is_equal
    mg2hf(tmp_path / "mg", tmp_path / "back")
    save_huggingface(
        tmp_path / "as_transformers",
        CONFIG,
        {name.replace("backbone.embedding.", "backbone.embeddings."): tensor for name, tensor in tensors.items()},
    )
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "as_transformers")


def hf2mg_as_mamba(asked, folder):
    run_conversion(prepare_to_megatron(asked, load_registry()), folder, Settings())


def test_head_of_a_tied_model_must_be_the_embedding(tmp_path):
    tensors = authors_tensors() | {"lm_head.weight": content("another", (96, 42))}
    hf = save_huggingface(tmp_path / "hf", AUTHORS, tensors, ending="bin")
    with pytest.raises(MscvtError, match=r"lm_head.weight differs from backbone.embeddings.weight"):
        hf2mg_as_mamba(Request(hf, Options(), model_type="mamba2"), tmp_path / "mg")


def test_embedding_under_both_names_is_refused(tmp_path):
    tensors = authors_tensors()
    both = tensors | {"backbone.embeddings.weight": tensors["backbone.embedding.weight"].clone()}
    hf = save_huggingface(tmp_path / "hf", AUTHORS, both)
    said = faults_of(Request(hf, Options(), model_type="mamba2"))
    assert "backbone.embeddings.weight under another name too, backbone.embedding.weight" in said


def test_sizes_that_the_authors_leave_out_are_those_of_their_code(tmp_path):
    config = {"d_model": 64, "n_layer": 1, "vocab_size": 9, "ssm_cfg": {"layer": "Mamba2"}}
    family = load_registry().family("mamba2")
    shapes = {name: tuple(tensor.shape) for name, tensor in source_tensors(family, config).items()}
    assert shapes["backbone.embeddings.weight"] == (16, 64)
    assert shapes["backbone.layers.0.mixer.in_proj.weight"] == (2 * 128 + 2 * 128 + 2, 64)
    assert shapes["backbone.layers.0.mixer.conv1d.weight"] == (128 + 2 * 128, 1, 4)


# Sizes that are given

GIVEN = {"hidden_size": 42, "mamba_state_dim": 10, "mamba_head_dim": 7, "mamba_num_groups": 4}
WITHOUT = {name: v for name, v in CONFIG.items() if name not in ("state_size", "head_dim", "n_groups", "hidden_size")}


@pytest.mark.parametrize("config", [CONFIG, WITHOUT], ids=["said", "unsaid"])
def test_given_sizes_hold_where_the_configuration_says_none(config, tmp_path):
    hf = save_huggingface(tmp_path / "hf", config, sources())
    hf2mg_as_mamba(Request(hf, Options(), given=GIVEN), tmp_path / "mg")
    args = vars(shards_in(tmp_path / "mg")["mp_rank_00"]["args"])
    assert {name: args[name] for name in GIVEN} == GIVEN
    mg2hf(tmp_path / "mg", tmp_path / "back")
    assert contents_in(tmp_path / "back") == contents_in(hf)


@pytest.mark.parametrize("name", GIVEN)
def test_given_size_that_contradicts_the_configuration_is_refused(name, tmp_path):
    faults = faults_of(request(tmp_path / "hf", CONFIG, given={**GIVEN, name: 5}))
    flag = "--" + name.replace("_", "-")
    assert f"{flag} 5 contradicts {tmp_path}/hf/config.json, which says {GIVEN[name]}" in faults


def test_given_size_that_contradicts_the_checkpoint_is_refused_on_the_way_back(tmp_path):
    hf = save_huggingface(tmp_path / "hf", CONFIG, sources())
    hf2mg(hf, tmp_path / "mg")
    asked = Request(tmp_path / "mg", Options(), given={"mamba_state_dim": 11})
    with pytest.raises(MscvtError, match=r"--mamba-state-dim 11 contradicts the checkpoint, which says 10"):
        prepare_to_huggingface(asked, load_registry())


def test_checkpoint_of_training_is_read_whatever_it_says_of_attention_and_mlp(tmp_path):
    """Training's arguments have values for parts that this model does not have."""
    hf = save_huggingface(tmp_path / "hf", CONFIG, sources())
    hf2mg(hf, tmp_path / "mg")
    (path,) = (tmp_path / "mg").glob("*/*/model_optim_rng.pt")
    state = shards_in(tmp_path / "mg")["mp_rank_00"]
    trained = {"num_attention_heads": 5, "kv_channels": 8, "swiglu": False, "ffn_hidden_size": 168}
    vars(state["args"]).update(trained, position_embedding_type="none", num_query_groups=1)
    torch.save(state, path)
    mg2hf(tmp_path / "mg", tmp_path / "back", hf_cfg_dir=hf)
    assert contents_in(tmp_path / "back") == contents_in(hf)
