"""Tests against the model's own class in transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mscvt.formats.huggingface.config import CONFIG
from mscvt.model.family import MODEL
from mscvt.model.hyperparameters import hyperparameters
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.testing.contract.base import Contract
from mscvt.testing.conversions import hf2mg, mg2hf
from mscvt.testing.forward import (
    TOLERANCE,
    Reference,
    disagreement,
    forward,
    logits_of,
    random_reference,
    tensors_by_role,
)
from mscvt.testing.sources import (
    shapes_in,
    sizes_of,
    source_shapes,
    without_mtp,
)

_COMPUTED = "test_roles_compute_the_logits_of_the_real_class"


class RealClassTests(Contract):
    """Names, shapes and logits are those of the real class."""

    def __init_subclass__(cls) -> None:
        """Leave out the tests of the real class where there is none."""
        for name in [name for name in vars(RealClassTests) if name.startswith("test_")]:
            has_test = cls.real is not None and not (name == _COMPUTED and cls.not_computed)
            setattr(cls, name, getattr(RealClassTests, name) if has_test else None)

    def reference(self, family: Family, folder: Path) -> Reference:
        """A random model of the real class, which has no MTP layers."""
        return random_reference(without_mtp(family, self.config), folder, real=self.real)

    def test_names_and_shapes_are_those_of_the_real_class(
        self, registry: Registry, family: Family, tmp_path: Path
    ) -> None:
        """What the model's own class saves is what the family describes; sizes read alike."""
        written = self.reference(family, tmp_path).config
        assert registry.recognise(written).model_type.config_model_types == family.model_type.config_model_types
        assert shapes_in(tmp_path) == source_shapes(family, written)
        assert sizes_of(family, written) == sizes_of(family, without_mtp(family, self.config))

    def test_roles_compute_the_logits_of_the_real_class(self, family: Family, tmp_path: Path) -> None:
        """Names that fit and are wrong (gate and up, keys and values, two norms) compute something else."""
        reference = self.reference(family, tmp_path)
        h = hyperparameters(family.respelled(reference.config), family.model_type, CONFIG)
        ends = dict(family.names((MODEL,), h))
        if h.get("tie_word_embeddings"):
            ends.pop("head", None)
        layers = [
            tensors_by_role(family.layer_names(layer, h), reference.tensors, layer.index)
            for layer in family.layers(h)
            if layer.mtp is None
        ]
        logits = forward(
            tensors_by_role(ends, reference.tensors),
            layers,
            reference.config,
            reference.tokens,
            conventions=self.conventions,
            blocks=self.blocks,
        )
        far = disagreement(logits, reference.logits)
        assert far < TOLERANCE, (
            f"computed from the roles, the logits of {self.model_type} differ by {far:.1%} from the real class's: "
            "are two names swapped in mscvt_names, or a norm or bias in the wrong place?"
        )

    def test_logits_are_equal_after_both_ways(self, registry: Registry, family: Family, tmp_path: Path) -> None:
        """The model opens again in its own class and computes exactly the same."""
        assert self.real is not None
        hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
        tokens = self.reference(family, hf).tokens
        options = [options for options in self.variants().values() if not options.num_layers]
        hf2mg(hf, mg, replace(options[-1], mtp_num_layers=None), registry=registry)
        mg2hf(mg, back, hf_cfg_dir=hf, registry=registry)
        expected = logits_of(hf, tokens, self.real)
        assert torch.equal(logits_of(back, tokens, self.real), expected)
        assert expected.std() > 0
