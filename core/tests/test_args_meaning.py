"""Settings in `args` under which the same numbers mean something else."""

import pytest

from mscvt.dialects.args_meaning import check_meaning
from mscvt.errors import MscvtError

PARTS = frozenset({"attention", "mlp"})
MEANINGS = {
    "apply_layernorm_1p": True,
    "add_rmsnorm_offset": True,
    "normalization": "LayerNorm",
    "position_embedding_type": "learned_absolute",
    "rotary_interleaved": True,
    "swiglu": False,
    "geglu": True,
    "squared_relu": True,
    "quick_geglu": True,
    "openai_gelu": True,
    "add_bias_linear": True,
    "add_dense_bias": True,
    "add_qkv_bias": True,
    "attention_output_gate": True,
    "post_norm": True,
}
"""Setting -> a value under which a plain decoder's weights mean something else."""


@pytest.mark.parametrize("name", MEANINGS)
def test_setting_that_changes_what_numbers_mean_is_refused_unless_it_is_the_familys(name):
    args = {name: MEANINGS[name]}
    with pytest.raises(MscvtError, match=f"weights mean something else: {name} is {MEANINGS[name]!r}, expected"):
        check_meaning(args, {}, PARTS)
    check_meaning(args, args, PARTS)
    with pytest.raises(MscvtError, match=f"{name} is 'odd', expected {MEANINGS[name]!r}"):
        check_meaning({name: "odd"}, args, PARTS)


@pytest.mark.parametrize(
    "args",
    [
        {},
        dict.fromkeys(MEANINGS),
        {"normalization": "RMSNorm", "position_embedding_type": "rope", "swiglu": True, "post_norm": False},
        {"position_embedding_type": "yarn", "rotary_interleaved": 0},
        {"hidden_dropout": 0.5},
    ],
    ids=str,
)
def test_usual_settings_and_those_that_are_not_recorded_are_taken(args):
    check_meaning(args, {}, PARTS)


def test_settings_of_parts_that_the_model_lacks_mean_nothing():
    check_meaning({"position_embedding_type": "none", "swiglu": False}, {}, frozenset({"mamba"}))
    with pytest.raises(MscvtError, match="swiglu is False"):
        check_meaning({"position_embedding_type": "none", "swiglu": False}, {}, frozenset({"moe"}))


def test_every_setting_that_differs_is_listed_at_once():
    with pytest.raises(MscvtError) as caught:
        check_meaning(MEANINGS, {"add_qkv_bias": True}, PARTS)
    names = {fault.split()[0] for fault in caught.value.faults}
    assert names == MEANINGS.keys() - {"add_qkv_bias", "add_dense_bias"}, "the latter follows from add_bias_linear"
    assert len(caught.value.faults) == len(names)
