"""Sizes that are given as options, for a family that has only some of them."""

import pytest

from mscvt import MscvtError
from mscvt.jobs.models import model_from_config
from mscvt.testing import Options, load_registry
from small_configurations import LLAMA

FAMILY = load_registry().family("llama2")


def model(config, given):
    return model_from_config(FAMILY, config, Options(), "config.json", given=given)


def test_given_size_completes_a_configuration():
    without = {name: value for name, value in LLAMA.items() if name != "hidden_size"}
    given = {"hidden_size": LLAMA["hidden_size"]}
    assert model(without, given).h == model(LLAMA, given).h == model(LLAMA, {}).h


def test_given_size_that_differs_is_refused_by_name():
    with pytest.raises(MscvtError, match=r"--hidden-size 7 contradicts config\.json, which says"):
        model(LLAMA, {"hidden_size": 7})


def test_given_size_that_the_family_lacks_is_refused_by_name():
    with pytest.raises(MscvtError, match="--mamba-state-dim 16: llama2 models have no such size"):
        model(LLAMA, {"mamba_state_dim": 16})
