"""Tests of what is refused: tensors and options that the family does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import CONFIG
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.layout.rules import fields_in
from mscvt.model.options import Row, rows
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.testing.checkpoints import save_huggingface
from mscvt.testing.contract.base import Contract
from mscvt.testing.sources import (
    layers_of,
    mtp_layers,
    one_name_per_role,
    sizes_of,
    source_shapes,
)


class RefusalTests(Contract):
    """Nothing is lost in silence, and no option is ignored."""

    def test_missing_tensors_are_refused_by_name(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        """One tensor of every role is taken away; all of them are named at once."""
        missing = set(one_name_per_role(family, self.config).values())
        kept = {name: tensor for name, tensor in tensors.items() if name not in missing}
        assert self.refusals(registry, family, kept, tmp_path) == {f"missing: {name}" for name in missing}

    def test_tensors_that_no_rule_takes_are_refused_by_name(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        """A layer too many and unknown names: nothing is lost in silence."""
        h = sizes_of(family, self.config)
        layers = layers_of(family, self.config)
        names = {name for layer in layers for name in family.names(layer.kind, h).values()}
        extra = {
            name.format(**dict.fromkeys(fields_in(name), 0) | {"layer": len(layers), "mtp": len(layers)})
            for name in names
        }
        extra |= {f"{name}_extra" for name in one_name_per_role(family, self.config).values()}
        more = tensors | {name: torch.zeros(1, dtype=torch.bfloat16) for name in extra}
        assert self.refusals(registry, family, more, tmp_path) == {f"no rule takes: {name}" for name in extra}

    def test_tensors_of_another_shape_are_refused_by_name(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        """One tensor of every role has a row too many."""
        shapes = source_shapes(family, self.config)
        wrong = {}
        for name in one_name_per_role(family, self.config).values():
            rows, *rest = shapes[name]
            wrong[name] = torch.zeros((rows + 1, *rest), dtype=tensors[name].dtype)
        found = self.refusals(registry, family, tensors | wrong, tmp_path)
        for name, tensor in wrong.items():
            shown, expected = list(tensor.shape), list(shapes[name])
            assert f"{name} has the shape {shown}, expected {expected} from config.json" in found

    def refusals(
        self, registry: Registry, family: Family, tensors: Mapping[str, torch.Tensor], folder: Path
    ) -> set[str]:
        """The faults that planning finds in a source with these tensors."""
        save_huggingface(folder / "hf", self.config, tensors)
        request = Request(folder / "hf", Options(mtp_num_layers=mtp_layers(family, self.config)))
        with pytest.raises(MscvtError) as caught:
            prepare_to_megatron(request, registry)
        return set(caught.value.faults)

    def test_options_for_parts_that_the_model_lacks_are_refused(
        self, registry: Registry, family: Family, tmp_path: Path
    ) -> None:
        """Options for experts, latent attention or MTP are refused where there are none."""
        h = sizes_of(family, self.config)
        features = family.features(family.layers(h), h)
        for row in rows(Options).values():
            if row.feature is not None and row.feature not in features:
                self.refuse(row, f"{self.model_type} models have no", registry, tmp_path)

    def test_options_that_the_model_type_can_not_have_are_refused(
        self, registry: Registry, family: Family, tmp_path: Path
    ) -> None:
        """What the model type refuses is refused by name, and with the reason."""
        for name, why in family.model_type.refused.items():
            self.refuse(rows(Options)[name], re.escape(f"{self.model_type} {why}"), registry, tmp_path)

    def refuse(self, row: Row, why: str, registry: Registry, folder: Path) -> None:
        """Check that an option with a value other than its default is refused by name."""
        (folder / CONFIG).write_text(json.dumps(self.config), encoding="utf-8")
        value: Any = True if row.is_switch else row.choices[-1] if row.choices else 2
        with pytest.raises(MscvtError, match=f"{row.flag}.*{why}"):
            prepare_to_megatron(Request(folder, Options(**{row.name: value})), registry)
