"""What the forward pass refuses, and the arithmetic that no class of transformers has."""

import pytest
import torch

from mscvt.errors import MscvtError
from mscvt.testing.forward import Conventions, Model, Roles, forward, normalized, projected, tensors_by_role
from mscvt.testing.forward.linear import feed_forward
from mscvt.testing.forward.routers import routed

CONFIG = {
    "hidden_size": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "num_experts_per_tok": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
}
SHAPES = {
    "norm.input": (6,),
    "attention.q": (8, 6),
    "attention.k": (4, 6),
    "attention.v": (4, 6),
    "attention.proj": (6, 8),
    "norm.pre_mlp": (6,),
    "mlp.gate": (10, 6),
    "mlp.up": (10, 6),
    "mlp.down": (6, 10),
}
EXPERT = {"gate": (5, 6), "up": (5, 6), "down": (6, 5)}
TOKENS = torch.tensor([[3, 1, 4, 1, 5]])


def random_tensors(shapes):
    generator = torch.Generator().manual_seed(7)
    return {role: torch.randn(shape, generator=generator) for role, shape in shapes.items()}


@pytest.fixture
def ends():
    return random_tensors({"embedding": (9, 6), "norm.final": (6,), "head": (9, 6)})


@pytest.fixture
def dense():
    return random_tensors(SHAPES)


@pytest.fixture
def sparse():
    layer = random_tensors({role: shape for role, shape in SHAPES.items() if not role.startswith("mlp.")})
    layer |= random_tensors({"moe.router": (3, 6)})
    for kind, shape in EXPERT.items():
        layer[f"moe.expert.{kind}"] = [torch.randn(shape, generator=torch.Generator().manual_seed(e)) for e in range(3)]
    return layer


def refusal(ends, layers, config=CONFIG, **options):
    with pytest.raises(MscvtError) as caught:
        forward(ends, layers, config, TOKENS, **options)
    return str(caught.value)


# Refusals


def test_roles_that_nothing_computes_with_are_refused_by_name(ends, dense):
    extra = {**dense, "attention.sink": torch.zeros(2), "moe.router_bias": torch.zeros(3)}
    assert "layer 1 has roles of mlp and of moe" in refusal(ends, [dense, extra])
    del extra["moe.router_bias"]
    assert "layer 1 has roles that nothing computes with: attention.sink" in refusal(ends, [dense, extra])
    assert "the model has roles that nothing computes with: tail" in refusal({**ends, "tail": ends["head"]}, [dense])


def test_missing_role_is_refused_by_layer_and_name(ends, dense):
    lacking = {role: tensor for role, tensor in dense.items() if role != "mlp.up"}
    assert "layer 1 has no tensor for the role mlp.up" in refusal(ends, [dense, lacking])
    assert "layer 0 has no roles that begin with attention, mla" in refusal(ends, [{"norm.input": torch.ones(6)}])


def test_shapes_that_do_not_fit_are_refused_with_every_role(ends, dense):
    swapped = {**dense, "mlp.up": dense["mlp.down"], "mlp.down": dense["mlp.up"]}
    found = refusal(ends, [dense, swapped])
    assert "layer 1: shapes don't fit together" in found
    assert "mlp.up: [6, 10]" in found


def test_head_is_required_unless_the_configuration_ties_it(ends, dense):
    head = ends.pop("head")
    assert "no tensor for the role head" in refusal(ends, [dense])
    tied = forward(ends, [dense], CONFIG | {"tie_word_embeddings": True}, TOKENS)
    assert torch.allclose(tied, forward({**ends, "head": ends["embedding"]}, [dense], CONFIG, TOKENS))
    assert not torch.allclose(tied, forward({**ends, "head": head}, [dense], CONFIG, TOKENS))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0}}, "rope_type is yarn"),
        ({"hidden_act": "mish"}, "hidden_act is mish"),
        ({"rms_norm_eps": None}, "no rms_norm_eps or layer_norm_eps"),
    ],
)
def test_configuration_that_is_not_understood_is_refused(ends, dense, changed, message):
    assert message in refusal(ends, [dense], CONFIG | changed)


def test_unknown_router_is_refused(ends, sparse):
    assert "the router is dice" in refusal(ends, [sparse], conventions=Conventions(router="dice"))


def test_experts_in_other_numbers_are_refused(ends, sparse):
    fewer = {**sparse, "moe.expert.up": sparse["moe.expert.up"][:2]}
    assert "moe.expert.down 3, moe.expert.gate 3, moe.expert.up 2" in refusal(ends, [fewer])
    rows = {**sparse, "moe.router": torch.ones(4, 6)}
    assert "layer 0 has 3 experts, expected 4" in refusal(ends, [rows])
    listed = {**sparse, "attention.q": [sparse["attention.q"]]}
    assert "attention.q has 1 tensors, expected one" in refusal(ends, [listed])


def test_names_that_the_model_lacks_are_all_said():
    names = {"head": "lm_head", "mlp.up": "layers.{layer}.up", "moe.expert.up": "layers.{layer}.{expert}.up"}
    with pytest.raises(MscvtError) as caught:
        tensors_by_role(names, {"layers.3.up": torch.ones(1)}, layer=3)
    assert caught.value.faults == ("head: lm_head", "moe.expert.up: layers.3.0.up")


# Arithmetic


def test_experts_are_listed_in_the_order_of_their_numbers():
    tensors = {f"layers.3.{expert}.up": torch.tensor(expert) for expert in sorted(range(12), key=str)}
    found = tensors_by_role({"moe.expert.up": "layers.{layer}.{expert}.up"}, tensors, layer=3)
    assert [int(tensor) for tensor in found["moe.expert.up"]] == list(range(12))


def test_experts_in_one_tensor_are_those_of_a_list(ends, sparse):
    stacked = {role: torch.stack(tensor) if isinstance(tensor, list) else tensor for role, tensor in sparse.items()}
    listed = forward(ends, [sparse], CONFIG, TOKENS)
    assert torch.equal(listed, forward(ends, [stacked], CONFIG, TOKENS))


def test_bfloat16_tensors_are_computed_in_float32(ends, dense):
    rounded = {role: tensor.bfloat16() for role, tensor in dense.items()}
    exact = {role: tensor.float() for role, tensor in rounded.items()}
    logits = forward(ends, [rounded], CONFIG, TOKENS)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, forward(ends, [exact], CONFIG, TOKENS))


def test_squared_relu_without_a_gate():
    layer = Roles(
        "layer 0", {"mlp.up": torch.tensor([[1.0], [-2.0], [3.0]]), "mlp.down": torch.tensor([[1.0, 10, 100]])}
    )
    found = feed_forward(torch.tensor([[2.0], [-1.0]]), layer, "mlp", Model({"hidden_act": "relu2"}, Conventions()))
    assert found.tolist() == [[4.0 + 3600.0], [40.0]]


def test_bias_of_a_softmax_router_decides_the_choice_alone():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    layer = Roles("layer 0", {"moe.router": torch.eye(3), "moe.router_bias": torch.tensor([5.0, 0.0, 0.0])})
    config = {"num_experts_per_tok": 2, "norm_topk_prob": False}
    found = routed(logits, layer, Model(config, Conventions(router="softmax")))
    assert torch.allclose(found, torch.tensor([[0.0900306, 0.0, 0.6652410]]))


def test_layer_norm_where_the_norm_has_a_bias():
    layer = Roles("layer 0", {"norm.input": torch.tensor([2.0, 3.0]), "norm.input_bias": torch.tensor([0.5, 0.25])})
    found = normalized(torch.tensor([[1.0, 5.0]]), layer, "norm.input", Model({"rms_norm_eps": 0.0}, Conventions()))
    assert torch.allclose(found, torch.tensor([[-1.5, 3.25]]))


# Blocks of a plugin


def running_mean(x, layer, model):
    """What a plugin may bring: the mean of all tokens so far, projected."""
    counts = torch.arange(1, x.shape[1] + 1)[:, None]
    return projected(x.cumsum(dim=1) / counts, layer, "mean.proj")


def test_block_of_a_plugin_stands_in_place_of_attention_and_may_be_all_of_a_layer(ends):
    layer = random_tensors({"norm.input": (6,), "mean.proj": (6, 6), "mean.proj_bias": (6,)})
    logits = forward(ends, [layer], CONFIG, TOKENS, blocks={"mean": running_mean})
    x = ends["embedding"][TOKENS[0]]

    def rms(y, weight):
        return y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    means = torch.stack([rms(x, layer["norm.input"])[: n + 1].mean(0) for n in range(5)])
    x = x + means @ layer["mean.proj"].T + layer["mean.proj_bias"]
    assert torch.allclose(logits[0], rms(x, ends["norm.final"]) @ ends["head"].T, atol=1e-5)


def test_block_of_a_plugin_stands_in_place_of_the_cores_own(ends, dense):
    def nothing(x, layer, model):
        for part in ("gate", "up", "down"):
            layer[f"mlp.{part}"]
        return torch.zeros_like(x)

    without = {role: tensor for role, tensor in dense.items() if not role.startswith("mlp.") and role != "norm.pre_mlp"}
    found = forward(ends, [dense], CONFIG, TOKENS, blocks={"mlp": nothing})
    assert torch.equal(found, forward(ends, [without], CONFIG, TOKENS))
