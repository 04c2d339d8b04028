"""Tests of what a family says of itself: its configuration, names, layers and rules."""

from __future__ import annotations

import pytest

from mscvt.errors import MscvtError
from mscvt.layout.rules import fields_in
from mscvt.model.family import MODEL, MTP
from mscvt.model.hyperparameters import hyperparameters, model_fields
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.testing.contract.base import Contract
from mscvt.testing.contract.replaced import differences, own_rules
from mscvt.testing.sources import (
    describe_whole,
    layers_of,
    mtp_layers,
    sizes_of,
)


class DescriptionTests(Contract):
    """The description fits the configuration, and itself."""

    def test_model_type_is_recognised_from_config_alone(self, registry: Registry) -> None:
        """Exactly this model type claims the configuration."""
        for config in (self.config, self.older_config()):
            assert registry.recognise(config).model_type.name == self.model_type

    def test_both_generations_of_config_read_alike(self, family: Family) -> None:
        """What transformers 4 and 5 write gives the same sizes."""
        older = self.older_config()
        assert older != self.config, "config is what transformers 4 wrote; give what transformers 5 writes"
        read = [sizes_of(family, config) for config in (self.config, older)]
        assert read[0] == read[1]

    def test_required_field_is_named_where_config_lacks_it(self, family: Family) -> None:
        """No required size is guessed."""
        required = [field for field in model_fields(family.model_type).values() if field.default is ...]
        for field in required:
            lacking = {name: value for name, value in family.respelled(self.config).items() if name not in field.paths}
            with pytest.raises(MscvtError, match=field.paths[0]):
                hyperparameters(lacking, family.model_type, "config.json")

    def test_names_have_a_place_for_every_number(self, family: Family) -> None:
        """A decoder layer's names contain `{layer}`, and no two roles of a layer share a name."""
        h = sizes_of(family, self.config)
        layers = layers_of(family, self.config)
        decoder = {layer.kind for layer in layers if layer.mtp is None}
        depth = mtp_layers(family, self.config)
        kinds = {layer.kind for layer in layers} | ({(MTP,)} if depth else set())
        for kind in ((MODEL,), *sorted(kinds)):
            names = family.names(kind, h)
            assert names, f"no names for {kind} layers"
            assert len(set(names.values())) == len(names), f"two roles of {kind} layers have one name"
            for role, name in names.items():
                numbers = fields_in(name) & {"layer", "mtp"}
                is_numbered = (
                    "layer" in numbers if kind in decoder else bool(numbers) or (kind != (MODEL,) and depth == 1)
                )
                assert is_numbered == (kind != (MODEL,)), f"{role} of {kind} layers: {name}"

    def test_layers_are_enumerated_in_order(self, family: Family) -> None:
        """Decoder layers come first, then MTP layers, all numbered as in the source."""
        layers = list(layers_of(family, self.config))
        decoder = [layer for layer in layers if layer.mtp is None]
        mtp = [layer for layer in layers if layer.mtp is not None]
        assert layers == [*decoder, *mtp]
        assert [layer.index for layer in decoder] == list(range(len(decoder)))
        assert len(decoder) == sizes_of(family, self.config)["num_layers"]
        assert [layer.mtp for layer in mtp] == list(range(len(mtp)))

    def test_matrices_of_own_rules_are_cut(self, family: Family) -> None:
        """A matrix without cuts is on every rank; one that is meant so is listed in `whole`."""
        own = {rule.key for rule in own_rules(family, self.config)}
        uncut = {
            key: parameter.layout.left[0].shape
            for parameter in describe_whole(family, self.config).parameters
            if (key := parameter.layout.left[0].name) in own and not parameter.layout.cuts
        }
        matrices = {key: shape for key, shape in uncut.items() if sum(size > 1 for size in shape) > 1}
        forgotten = [f"{key} {list(shape)}" for key, shape in matrices.items() if key not in self.whole]
        assert not forgotten, (
            f"mscvt_split_rules of {self.model_type} gives no cuts, and `whole` doesn't list: {forgotten}"
        )

    def test_own_rules_do_what_the_core_does_with_the_same_roles(self, family: Family) -> None:
        """A rule with the roles of one of the core's has its key, its elements in its places and its cuts.

        One that differs on purpose has its key in `differs`.
        """
        found = {key: what for key, what in differences(family, self.config) if key not in self.differs}
        assert not found, f"mscvt_split_rules of {self.model_type} differs from the core, and `differs` lists not: " + (
            "; ".join(f"{key} ({what})" for key, what in found.items())
        )
