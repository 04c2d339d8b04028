"""Tests against the model's own class in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mscvt.formats.huggingface.config import CONFIG
from mscvt.model.family import MODEL, Hyperparameters
from mscvt.model.fields import DECODER_FIELDS
from mscvt.model.hyperparameters import hyperparameters, lookup, model_fields
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

_FORWARD_NAMES: Mapping[str, str] = {
    **{name: entry.paths[0] for name, entry in DECODER_FIELDS.items()},
    "moe_router_topk": "num_experts_per_tok",
}
"""Hyperparameter -> what `mscvt.testing.forward` calls it, which knows transformers' usual names alone."""
_COMPUTED = "test_roles_compute_the_logits_of_the_real_class"


def as_computed(family: Family, config: Mapping[str, Any], h: Hyperparameters) -> dict[str, Any]:
    """A configuration with the names that logits are computed with: as the family spells it, and reads its fields."""
    respelled, fields = family.respelled(config), model_fields(family.model_type)
    read = {name: h[name] for name, entry in fields.items() if name in h and lookup(respelled, entry.paths) is not None}
    return {**respelled, **{usual: read[name] for name, usual in _FORWARD_NAMES.items() if name in read}}


def unsaid_fields(family: Family, config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The family's own fields that a configuration says nothing of, not even null, and where they were looked for."""
    respelled = family.respelled(config)
    own = {name: entry.paths for name, entry in family.model_type.fields.items() if entry.paths}
    return {name: paths for name, paths in own.items() if not any(_says(respelled, path) for path in paths)}


def _says(config: Any, path: str) -> bool:
    *outer, last = path.split(".")
    for key in outer:
        config = config.get(key) if isinstance(config, Mapping) else None
    return isinstance(config, Mapping) and last in config


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
        unsaid = unsaid_fields(family, written)
        assert unsaid.keys() <= set(self.not_saved), (
            f"fields of {self.model_type} that stand nowhere in what its class saves, and not in `not_saved`: {unsaid}"
        )
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
            as_computed(family, reference.config, h),
            reference.tokens,
            conventions=self.conventions,
            blocks=self.blocks,
        )
        far = disagreement(logits, reference.logits)
        assert far < TOLERANCE, (
            f"computed from the roles, the logits of {self.model_type} differ by {far:.1%} from the real class's: "
            "are two names swapped in mscvt_names, or a norm or bias in the wrong place? Or does the class compute "
            "what no role tells, such as layers without rotary positions or another scale (`conventions`, `blocks`)?"
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
