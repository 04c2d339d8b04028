"""The forward pass from roles gives the logits of transformers' own classes."""

from copy import deepcopy

import pytest

from forward_families import FAMILIES
from mscvt.testing.forward import TOLERANCE, disagreement, forward, random_reference


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_forward_gives_the_logits_of_the_family(family, tmp_path):
    reference = random_reference(family.config, tmp_path)
    ends, layers = family.roles(reference.tensors)
    logits = forward(ends, layers, reference.config, reference.tokens, conventions=family.conventions)
    assert logits.shape == reference.logits.shape
    assert disagreement(logits, reference.logits) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_names_of_the_family_take_every_tensor(family, tmp_path):
    reference = random_reference(family.config, tmp_path)
    ends, layers = family.roles(reference.tensors)
    taken = sum(
        len(tensor) if isinstance(tensor, list) else 1 for roles in (ends, *layers) for tensor in roles.values()
    )
    assert taken == len(reference.tensors)


def test_configuration_stays_as_it_is_given(tmp_path):
    config = FAMILIES["glm4_moe air"].config  # its class writes a default into the dictionary of rotary positions
    given = deepcopy(config)
    assert random_reference(config, tmp_path).config["rope_parameters"] != given["rope_parameters"]
    assert config == given
