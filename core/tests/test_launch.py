"""What the training script is told, and what a configuration says that no tensor shows."""

import pytest

from mscvt.dialects import megatron
from mscvt.dialects.megatron.scaling import scaling
from mscvt.dialects.settings import recorded_settings, settings_of, unsaid

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}
ROUTED = {"num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5}


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_scaling_of_llama3_is_said_from_either_spelling(name):
    assert settings_of({name: LLAMA3}, has_experts=False) == {
        "rope_scaling_type": "llama3",
        "rope_scaling_factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_original_length_is_taken_from_the_configuration_where_the_scaling_lacks_it():
    config = {"rope_scaling": YARN, "original_max_position_embeddings": 4096}
    found = settings_of(config, has_experts=False)
    assert found["rope_scaling_original_max_position_embeddings"] == 4096
    assert (found["beta_fast"], found["rope_scaling_mscale_all_dim"]) == (32, 1.0)


def test_routing_is_said_of_models_with_experts_alone_and_without_what_holds_anyway():
    config = {**ROUTED, "norm_topk_prob": True, "scoring_func": "softmax"}
    assert settings_of(config, has_experts=False) == {}
    assert settings_of(config, has_experts=True) == {
        "moe_router_topk": 8,
        "moe_router_num_groups": 8,
        "moe_router_group_topk": 4,
        "moe_router_topk_scaling_factor": 2.5,
        "norm_topk_prob": True,
    }


SCORES, GROUPS, CHOSEN = "moe_router_score_function", "moe_router_num_groups", "moe_router_group_topk"


@pytest.mark.parametrize(
    ("config", "is_biased", "told"),
    [
        ({"n_group": 2, "topk_group": 1}, False, {GROUPS: 2, CHOSEN: 1}),
        ({"n_group": 1, "topk_group": 1}, False, {}),
        ({"n_group": 4, "topk_group": 4}, False, {}),
        ({"n_group": 4}, False, {}),
        ({"topk_group": 1}, False, {}),
        ({"n_group": 8, "topk_group": 3, "topk_method": "greedy"}, False, {}),
        ({"n_group": 8, "topk_group": 3, "topk_method": "noaux_tc"}, False, {GROUPS: 8, CHOSEN: 3}),
        ({}, True, {SCORES: "sigmoid"}),
        ({"scoring_func": "softmax"}, True, {SCORES: "softmax"}),
        ({"scoring_func": "softmax"}, False, {}),
        ({"score_function": "sigmoid"}, False, {SCORES: "sigmoid"}),
        ({"norm_topk_prob": False}, False, {"moe_router_pre_softmax": True}),
        (
            {"norm_topk_prob": False, "scoring_func": "softmax"},
            True,
            {SCORES: "softmax", "moe_router_pre_softmax": True},
        ),
        ({"norm_topk_prob": False}, True, {SCORES: "sigmoid"}),
        ({"norm_topk_prob": False, "scoring_func": "sqrtsoftplus"}, False, {SCORES: "sqrtsoftplus"}),
        ({"norm_topk_prob": True}, False, {"norm_topk_prob": True}),
    ],
    ids=str,
)
def test_routing_is_told_as_megatron_core_means_it_and_recorded_so_that_it_is_told_again(config, is_biased, told):
    assert settings_of(config, has_experts=True, is_biased=is_biased) == told
    assert recorded_settings(told, has_experts=True, is_biased=is_biased) == told


def test_settings_are_the_same_from_what_was_recorded_of_them():
    found = settings_of({**ROUTED, "rope_scaling": YARN}, has_experts=True)
    assert found == recorded_settings({**found, "num_layers": 3}, has_experts=True)


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ({"moe_router_pre_softmax": False, "norm_topk_prob": False}, {}),
        ({"moe_router_pre_softmax": True, "norm_topk_prob": False}, {"moe_router_pre_softmax": True}),
        ({"moe_router_pre_softmax": True, "norm_topk_prob": True}, {"norm_topk_prob": True}),
        ({SCORES: "softmax", GROUPS: None, CHOSEN: None}, {}),
    ],
    ids=str,
)
def test_routing_of_a_training_run_is_told_again(recorded, told):
    """MindSpeed-LLM's scripts for Qwen3-Next give both, which is the softmax of the chosen scores."""
    assert recorded_settings(recorded, has_experts=True) == told


@pytest.mark.parametrize(
    ("config", "is_biased", "said"),
    [
        ({"norm_topk_prob": False, "num_experts_per_tok": 2}, False, []),
        ({"norm_topk_prob": False, "num_experts_per_tok": 1}, True, []),
        ({"norm_topk_prob": True, "num_experts_per_tok": 2}, True, []),
        ({"norm_topk_prob": False, "num_experts_per_tok": 2}, True, ["sigmoid scores sum to one"]),
        ({"n_group": 8, "topk_group": 4, "num_experts_per_tok": 8}, True, []),
        (
            {"n_group": 8, "topk_group": 2, "num_experts_per_tok": 8},
            True,
            ["best 2 of each, and megatron-core by the best 4"],
        ),
        (
            {"n_group": 8, "topk_group": 3, "num_experts_per_tok": 6, "topk_method": "group_limited_greedy"},
            False,
            ["best 1 of each, and megatron-core by the best 2"],
        ),
        ({"n_group": 8, "topk_group": 8, "num_experts_per_tok": 6}, False, []),
    ],
    ids=str,
)
def test_routing_that_training_has_no_option_for_is_noted(config, is_biased, said):
    notes = unsaid(config, has_experts=True, is_biased=is_biased)
    assert len(notes) == len(said)
    assert all(words in note for words, note in zip(said, notes, strict=True))
    assert unsaid(config, has_experts=False) == ()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, ()),
        ({"rope_scaling": {"rope_type": "default"}}, ()),
        ({"rope_scaling": LLAMA3}, ()),
        ({"rope_scaling": {"type": "dynamic"}}, ("(dynamic)",)),
        ({"rope_scaling": {"type": ["yarn"]}}, ("(['yarn'])",)),
    ],
    ids=["none", "default", "llama3", "dynamic", "a list"],
)
def test_scaling_that_training_has_no_option_for_is_noted(config, said):
    notes = unsaid(config, has_experts=False)
    assert len(notes) == len(said)
    assert all(word in note for word, note in zip(said, notes, strict=True))


def test_scaling_that_is_the_familys_is_noted_where_the_family_does_not_speak():
    config = {"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}
    assert unsaid(config, has_experts=False) == ()
    (note,) = unsaid(config, has_experts=False, is_usual=False)
    assert "(longrope)" in note


LATENT, PLAIN = {"mla.kv_down"}, {"attention.q"}
BY_EIGHT = {"use_rope_scaling": True, "rope_scaling_factor": 8.0}


@pytest.mark.parametrize(
    ("kind", "roles", "told", "noted"),
    [
        (LLAMA3, PLAIN, {"use_rope_scaling": True, "rope_scaling_factor": 8.0}, []),
        (
            {**LLAMA3, "low_freq_factor": 2.0},
            PLAIN,
            {"use_rope_scaling": True, "rope_scaling_factor": 8.0},
            ["low_freq"],
        ),
        (
            YARN,
            LATENT,
            {"rotary_scaling_factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0},
            [],
        ),
        (
            {"type": "yarn", "factor": 4, "beta_fast": 16, "original_max_position_embeddings": 2048},
            LATENT,
            {"rotary_scaling_factor": 4},
            ["with beta_fast 16, and Megatron-LM has 32", "embeddings 2048, and Megatron-LM has 4096"],
        ),
        (YARN, PLAIN, {}, ["(yarn), for which Megatron-LM has no option"]),
        ({"type": "default"}, LATENT, {}, []),
    ],
    ids=["llama3", "llama3 otherwise", "yarn", "yarn otherwise", "yarn without latent attention", "none"],
)
def test_megatron_is_told_of_scaling_what_it_has_options_for(kind, roles, told, noted):
    settings = settings_of({"rope_scaling": kind}, has_experts=False)
    assert scaling(settings, roles) == told
    notes = megatron.unsaid(settings, roles)
    assert len(notes) == len(noted)
    assert all(words in note for words, note in zip(noted, notes, strict=True))


def test_recorded_values_of_another_kind_are_passed_over():
    args = {"rope_scaling_type": ["yarn"], "moe_router_topk": {"a": 1}, "norm_topk_prob": None}
    assert recorded_settings(args, has_experts=True) == {}
