"""A wrong table of names moves logits: any two roles swapped that have the same shape, and any role forgotten."""

from dataclasses import replace
from itertools import combinations

import pytest

from forward_families import FAMILIES
from mscvt.errors import MscvtError
from mscvt.testing.forward import TOLERANCE, disagreement, forward, random_reference

SEEN = 100 * TOLERANCE
EQUAL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_shared_experts": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "n_routed_experts": 32,
    "num_experts": 32,
    "num_local_experts": 32,
    "attention_bias": True,
}
"""Nearly every matrix is [32, 32], and nearly every vector [32]."""
LATENT = {"head_dim": 4, "q_lora_rank": 32, "kv_lora_rank": 28, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4}
LATENT |= {"v_head_dim": 8, "index_n_heads": 8, "index_head_dim": 8, "attention_bias": False}
MODELS = {
    "qwen3": ({}, 37),
    "gemma2": ({"attention_bias": False}, 27),
    "qwen2_moe": ({}, 41),
    "glm4_moe": ({}, 47),
    "phimoe": ({}, 41),
    "deepseek_v32": (LATENT, 39),
}
"""Family -> further sizes, pairs of roles with one shape in its last layer."""
BLOCKS = ("moe.shared", "indexer")


@pytest.fixture(params=MODELS)
def model(request, tmp_path):
    family = FAMILIES[request.param]
    known = set(random_reference(family.config, tmp_path / "full").config)
    sizes = {name: value for name, value in (EQUAL | MODELS[request.param][0]).items() if name in known}
    family = replace(family, sizes={**family.sizes, **sizes})
    if request.param == "qwen3":
        biases = {f"attention.{role}_bias": f"attention.{role}" for role in ("q", "k", "v", "proj")}
        layer = family.layers[0]
        more = {bias: layer[role].replace(".weight", ".bias") for bias, role in biases.items()}
        family = replace(family, layers=tuple({**names, **more} for names in family.layers))
    return family, random_reference(family.config, tmp_path / "equal"), MODELS[request.param][1]


def disagreement_with(family, reference, roles):
    """How far logits are off if the last layer has these roles."""
    ends, layers = family.roles(reference.tensors)
    logits = forward(ends, [*layers[:-1], roles], reference.config, reference.tokens, conventions=family.conventions)
    return disagreement(logits, reference.logits)


def shape_of(tensor):
    return (len(tensor), *tensor[0].shape) if isinstance(tensor, list) else tensor.shape


def test_two_roles_of_one_shape_swapped_move_logits(model):
    family, reference, count = model
    roles = family.roles(reference.tensors)[1][-1]
    pairs = [pair for pair in combinations(roles, 2) if shape_of(roles[pair[0]]) == shape_of(roles[pair[1]])]
    moved = {
        (one, other): disagreement_with(family, reference, {**roles, one: roles[other], other: roles[one]})
        for one, other in pairs
    }
    assert {pair: by for pair, by in moved.items() if not by > SEEN} == {}
    assert len(pairs) == count


def test_roles_forgotten_move_logits_or_are_refused(model):
    family, reference, _ = model
    roles = family.roles(reference.tensors)[1][-1]
    moved, refused = {}, set()
    for forgotten in (*roles, *BLOCKS):
        kept = {role: tensor for role, tensor in roles.items() if not f"{role}.".startswith(f"{forgotten}.")}
        if len(kept) == len(roles):
            continue
        try:
            moved[forgotten] = disagreement_with(family, reference, kept)
        except MscvtError:
            refused.add(forgotten)
    assert {role: by for role, by in moved.items() if not by > SEEN} == {}
    assert {role for role in roles if role.endswith("_bias")} <= moved.keys()
    assert {"norm.input", "norm.pre_mlp"} <= refused or "norm.post_mlp" in roles


def test_experts_in_another_order_move_logits(model):
    family, reference, _ = model
    roles = family.roles(reference.tensors)[1][-1]
    experts = [role for role, tensors in roles.items() if isinstance(tensors, list)]
    assert len(experts) == (3 if "moe.router" in roles else 0)
    for role in experts:
        assert disagreement_with(family, reference, {**roles, role: roles[role][::-1]}) > SEEN
    if experts:
        turned = {role: roles[role][::-1] for role in experts}
        assert disagreement_with(family, reference, {**roles, **turned}) > SEEN


def test_ends_and_layers_swapped_move_logits(tmp_path):
    family = FAMILIES["llama"]
    reference = random_reference(family.config, tmp_path)
    ends, layers = family.roles(reference.tensors)
    swapped = {**ends, "embedding": ends["head"], "head": ends["embedding"]}
    for wrong in ((swapped, layers), (ends, layers[::-1])):
        logits = forward(*wrong, reference.config, reference.tokens)
        assert disagreement(logits, reference.logits) > SEEN
