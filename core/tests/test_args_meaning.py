"""Settings in `args` under which the same numbers mean something else than the family's."""

import pytest

from mscvt.dialects.mindspeed import check_meaning
from mscvt.errors import MscvtError

DENSE = frozenset({"attention", "mlp", "norm"})
USUAL = {
    "apply_layernorm_1p": False,
    "normalization": "RMSNorm",
    "position_embedding_type": "rope",
    "rotary_interleaved": False,
    "swiglu": True,
    "add_bias_linear": False,
    "add_qkv_bias": False,
}


@pytest.mark.parametrize(
    "args", [{}, USUAL, dict.fromkeys(USUAL), {"position_embedding_type": "yarn", "lr": 3}], ids=str
)
def test_args_that_say_the_usual_or_nothing_are_accepted(args):
    check_meaning(args, {}, DENSE)


def test_all_settings_that_mean_something_else_are_named_at_once():
    with pytest.raises(MscvtError) as caught:
        check_meaning(USUAL | {"swiglu": False, "add_qkv_bias": True, "normalization": "LayerNorm"}, {}, DENSE)
    assert caught.value.faults == (
        "normalization is 'LayerNorm', expected 'RMSNorm'",
        "swiglu is False, expected True",
        "add_qkv_bias is True, expected False",
    )
    assert "--model-type-hf" in caught.value.hint


def test_settings_of_the_family_take_the_place_of_the_usual_ones():
    own = {"add_qkv_bias": True, "position_embedding_type": "none"}
    check_meaning(USUAL | own, own, DENSE)
    with pytest.raises(MscvtError, match="position_embedding_type is 'rope', expected 'none'"):
        check_meaning(USUAL | {"add_qkv_bias": True}, own, DENSE)


@pytest.mark.parametrize(
    ("name", "value", "features"),
    [
        ("swiglu", False, {"attention", "norm"}),
        ("position_embedding_type", "none", {"mlp", "mixer"}),
        ("add_qkv_bias", True, {"moe", "mixer"}),
    ],
)
def test_settings_of_parts_that_the_model_lacks_mean_nothing(name, value, features):
    check_meaning(USUAL | {name: value}, {}, frozenset(features))
    with pytest.raises(MscvtError, match=f"{name} is {value!r}"):
        check_meaning(USUAL | {name: value}, {}, frozenset(features) | {"mla", "mlp"})
