"""Biases of an MLP and of the norms before it: bytes, keys, args and flags, and models that no training can have."""

from argparse import Namespace

import pytest
import torch

from biased_plugin import POINT
from mscvt.dialects.biases import check_biases
from mscvt.dialects.options import Options
from mscvt.errors import Faults, MscvtError
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.models import model_from_config
from mscvt.jobs.prepare import prepare_reshard
from mscvt.jobs.request import Request
from mscvt.plugins.registry import load_registry
from mscvt.testing import contents_in, hf2mg, mg2hf, save_huggingface, shards_in, source_tensors
from small_configurations import LLAMA, SIZES

REGISTRY = load_registry([POINT])
TP, IMPL, TE = "target_tensor_parallel_size", "transformer_impl", "transformer_engine"
PLAIN = {**SIZES, "model_type": "starcoder2", "num_key_value_heads": 2, "norm_epsilon": 1e-5, "use_bias": True}
GATED = {**LLAMA, "model_type": "smollm3", "attention_bias": True, "mlp_bias": True}
LAYER = "decoder.layers.1."
UP, DOWN = (f"model.layers.1.mlp.{name}.bias" for name in ("c_fc", "c_proj"))


def nvidia(**options):
    return Options(dialect="megatron", **options)


def source(folder, config):
    return save_huggingface(folder, config, source_tensors(REGISTRY.recognise(config), config))


def converted(folder, config, options):
    """A checkpoint in `folder/mg`, of one in `folder/hf`."""
    return hf2mg(source(folder / "hf", config), folder / "mg", options, registry=REGISTRY)


def tensors_in(folder):
    """The model of each rank."""
    return [state["model"] for state in shards_in(folder).values()]


def rewritten(folder, **args):
    """Have the one shard of a checkpoint record other args."""
    (path,) = folder.rglob("*.pt")
    state = torch.load(path, weights_only=False)
    torch.save({**state, "args": Namespace(**{**vars(state["args"]), **args})}, path)


BOTH_WAYS = {
    f"{name} {kind} {impl}": (config, make(**{TP: 2, IMPL: impl}))
    for name, config in {"plain": PLAIN, "gated": GATED}.items()
    for kind, make in {"mindspeed": Options, "megatron": nvidia}.items()
    for impl in ("local", TE)
} | {
    f"{name} torch_dist": (config, nvidia(ckpt_format="torch_dist"))
    for name, config in (("plain", PLAIN), ("gated", GATED))
}


@pytest.mark.parametrize(("config", "options"), BOTH_WAYS.values(), ids=BOTH_WAYS)
def test_conversion_gives_back_every_bias(config, options, tmp_path):
    converted(tmp_path, config, options)
    mg2hf(tmp_path / "mg", tmp_path / "back", registry=REGISTRY)
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")


@pytest.mark.parametrize("options", [Options(**{TP: 2}), nvidia(**{TP: 2})], ids=["mindspeed", "megatron"])
def test_first_bias_is_cut_as_its_rows_are_and_the_second_is_whole(options, tmp_path):
    converted(tmp_path, PLAIN, options)
    original = source_tensors(REGISTRY.family("starcoder2"), PLAIN)
    for rank, tensors in enumerate(tensors_in(tmp_path / "mg")):
        assert torch.equal(tensors[f"{LAYER}mlp.linear_fc1.bias"], original[UP][7 * rank :][:7])
        assert torch.equal(tensors[f"{LAYER}mlp.linear_fc2.bias"], original[DOWN])


@pytest.mark.parametrize("options", [Options(**{TP: 2}), nvidia(**{TP: 2})], ids=["mindspeed", "megatron"])
def test_rank_has_its_part_of_the_gates_bias_and_then_of_ups(options, tmp_path):
    converted(tmp_path, GATED, options)
    original = source_tensors(REGISTRY.family("smollm3"), GATED)
    gate, up = (original[f"model.layers.1.mlp.{name}_proj.bias"] for name in ("gate", "up"))
    for rank, tensors in enumerate(tensors_in(tmp_path / "mg")):
        expected = torch.cat([half[7 * rank :][:7] for half in (gate, up)])
        assert torch.equal(tensors[f"{LAYER}mlp.linear_fc1.bias"], expected)


@pytest.mark.parametrize("config", [PLAIN, GATED], ids=["plain", "gated"])
def test_transformer_engine_has_the_same_layers_in_both_dialects(config, tmp_path):
    found = {}
    for name, options in (("mindspeed", Options(**{IMPL: TE})), ("megatron", nvidia())):
        converted(tmp_path / name, config, options)
        (tensors,) = tensors_in(tmp_path / name / "mg")
        layers = {key: tensor for key, tensor in tensors.items() if key.startswith("decoder.layers.")}
        found[name] = {key: tensor.tolist() for key, tensor in layers.items() if tensor is not None}
    assert found["mindspeed"] == found["megatron"]
    fused = {f"{LAYER}{module}.layer_norm_weight" for module in ("self_attention.linear_qkv", "mlp.linear_fc1")}
    assert fused <= found["mindspeed"].keys()
    assert not [key for key in found["mindspeed"] if "layernorm" in key]
    if config is PLAIN:
        assert {key.replace("weight", "bias") for key in fused} <= found["mindspeed"].keys()


@pytest.mark.parametrize("make", [Options, nvidia], ids=["mindspeed", "megatron"])
def test_training_is_told_that_projections_have_biases_where_they_have(make, tmp_path):
    for name, config, has_biases in (
        ("with", PLAIN, True),
        ("without", {**PLAIN, "use_bias": False}, False),
        ("gated", GATED, True),
    ):
        flags = converted(tmp_path / name, config, make()).training_flags
        (state,) = shards_in(tmp_path / name / "mg").values()
        assert ("--disable-bias-linear" in flags) is not has_biases
        assert "--add-bias-linear" not in flags
        assert vars(state["args"])["add_bias_linear"] is has_biases


@pytest.mark.parametrize("make", [Options, nvidia], ids=["mindspeed", "megatron"])
@pytest.mark.parametrize(("config", "has_gate"), [(PLAIN, False), (GATED, True)], ids=["plain", "gated"])
def test_training_is_told_of_the_gate_where_there_is_one(config, has_gate, make, tmp_path):
    flags = converted(tmp_path, config, make()).training_flags
    (state,) = shards_in(tmp_path / "mg").values()
    assert ("--swiglu" in flags) is vars(state["args"])["swiglu"] is has_gate


@pytest.mark.parametrize("make", [Options, nvidia], ids=["mindspeed", "megatron"])
@pytest.mark.parametrize("config", [PLAIN, GATED], ids=["plain", "gated"])
def test_args_of_training_need_not_repeat_that_attention_has_biases(config, make, tmp_path):
    converted(tmp_path, config, make())
    rewritten(tmp_path / "mg", add_bias_linear=True, add_qkv_bias=False, add_dense_bias=False)
    hf_cfg_dir = None if config is PLAIN else tmp_path / "hf"  # whose field has the name that training records
    mg2hf(tmp_path / "mg", tmp_path / "back", registry=REGISTRY, hf_cfg_dir=hf_cfg_dir)
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")


@pytest.mark.parametrize("make", [Options, nvidia], ids=["mindspeed", "megatron"])
def test_args_that_say_otherwise_than_the_model_are_one_fault(make, tmp_path):
    converted(tmp_path / "with", GATED, make())
    rewritten(tmp_path / "with/mg", add_bias_linear=False)
    with pytest.raises(MscvtError, match=r"mean something else: add_bias_linear is False, expected True$"):
        mg2hf(tmp_path / "with/mg", tmp_path / "back", registry=REGISTRY)
    converted(tmp_path / "without", {**GATED, "attention_bias": False, "mlp_bias": False}, make())
    rewritten(tmp_path / "without/mg", add_bias_linear=True, add_qkv_bias=False)
    with pytest.raises(MscvtError, match=r"mean something else: add_bias_linear is True, expected False$"):
        mg2hf(tmp_path / "without/mg", tmp_path / "back", registry=REGISTRY)


def test_checkpoint_in_the_other_dialect_is_what_the_original_gives(tmp_path):
    made = {"mindspeed": Options(**{TP: 2, IMPL: "local"}), "megatron": nvidia(**{TP: 2, IMPL: "local"})}
    for name, options in made.items():
        converted(tmp_path / name, PLAIN, options)
    for there, wanted in (("mindspeed", "megatron"), ("megatron", "mindspeed")):
        request = Request(
            tmp_path / there / "mg",
            Options(dialect=wanted, **{IMPL: "local"}),
            removed=frozenset({"make_vocab_size_divisible_by"}),
        )
        run_conversion(prepare_reshard(request, REGISTRY), tmp_path / f"to-{wanted}", Settings())
        mg2hf(tmp_path / f"to-{wanted}", tmp_path / f"back-{wanted}", registry=REGISTRY)
        assert contents_in(tmp_path / f"back-{wanted}") == contents_in(tmp_path / "mindspeed/hf")


ATTENTION = frozenset(f"attention.{name}" for name in ("q", "k", "v", "proj"))
MLP = frozenset({"mlp.gate", "mlp.up", "mlp.down"})
EXPERTS = frozenset({"moe.router", "moe.router_bias", "moe.expert.down"})


def biased(roles):
    return roles | {f"{role}_bias" for role in roles}


REFUSED = {  # roles of each kind of layer, what is said, and whether MindSpeed-LLM can't have it either
    "MLP alone": ([ATTENTION | biased(MLP)], "mlp.down_bias and lacks attention.q_bias, attention.k_bias, "
                  "attention.v_bias, attention.proj_bias", True),
    "attention alone": ([biased(ATTENTION) | MLP], "attention.proj_bias and lacks mlp.gate_bias, mlp.up_bias, "
                        "mlp.down_bias", False),
    "up without gate": ([biased(ATTENTION | MLP) - {"mlp.gate_bias"}], "and lacks mlp.gate_bias", True),
    "some layers": ([biased(ATTENTION | MLP), ATTENTION | MLP], "and lacks attention.q_bias", True),
    "packed projections": ([biased(MLP) | {"attention.qkv"}], "and lacks attention.qkv_bias", True),
    "latent attention": ([biased(MLP) | {"mla.proj"}], "and lacks mla.proj_bias", True),
    "experts": ([biased(ATTENTION | MLP), biased(ATTENTION) | EXPERTS], "and lacks moe.expert.down_bias", True),
    "experts beside attention": ([biased(ATTENTION) | EXPERTS], "and lacks moe.expert.down_bias", False),
    "shared experts": ([biased(ATTENTION | MLP), biased(ATTENTION | MLP) | {"moe.shared.down"}],
                       "has no biases in models with shared experts", True),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "said", "by_both"), REFUSED.values(), ids=REFUSED)
def test_biases_that_a_stack_has_not_together_are_refused(parts, said, by_both):
    faults = Faults()
    check_biases("megatron-core", parts, faults)
    with pytest.raises(MscvtError) as caught:
        faults.raise_if_any("refused")
    assert said in str(caught.value)
    assert ("dialect mindspeed" in caught.value.hint) is not by_both
    faults = Faults()
    check_biases("MindSpeed-LLM", parts, faults, apart=("attention.proj",))
    assert bool(faults) is by_both


ALLOWED = {
    "none": [ATTENTION | MLP, ATTENTION | EXPERTS],
    "queries, keys and values": [biased(ATTENTION - {"attention.proj"}) | {"attention.proj"} | MLP | EXPERTS],
    "all": [biased(ATTENTION | MLP), frozenset({"embedding"})],
    "without a gate": [biased(ATTENTION | MLP - {"mlp.gate"})],
    "no attention": [biased(MLP), frozenset({"mixer.in"})],
    "experts under roles of a family's own": [biased(ATTENTION) | EXPERTS | {"moe.expert.down_bias"}],
}


@pytest.mark.parametrize("parts", ALLOWED.values(), ids=ALLOWED)
def test_biases_that_a_stack_has_together_are_not_refused(parts):
    faults = Faults()
    check_biases("megatron-core", parts, faults)
    check_biases("MindSpeed-LLM", parts, faults, apart=("attention.proj",))
    assert not faults


@pytest.mark.parametrize("make", [Options, nvidia], ids=["mindspeed", "megatron"])
def test_model_with_biases_of_the_mlp_alone_is_refused_before_anything_is_planned(make):
    with pytest.raises(MscvtError, match=r"can't have that: .* lacks attention.q_bias"):
        model_from_config(REGISTRY.family("smollm3"), {**GATED, "attention_bias": False}, make(), "config.json")


def test_model_with_biases_of_attention_alone_is_refused_by_megatron_only():
    config, family = {**GATED, "mlp_bias": False}, REGISTRY.family("smollm3")
    assert model_from_config(family, config, Options(), "config.json").description.parameters
    with pytest.raises(MscvtError, match=r"the model has attention.proj_bias and lacks mlp.gate_bias"):
        model_from_config(family, config, nvidia(), "config.json")
