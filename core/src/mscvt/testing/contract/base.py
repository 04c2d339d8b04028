"""What the tests of the contract share: the family under test, its options and its tensors."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, ClassVar

import pytest
import torch

from mscvt.dialects.known import dialect_of
from mscvt.dialects.options import Options
from mscvt.dialects.registry import load_registry
from mscvt.errors import Faults, MscvtError
from mscvt.model.options import check_refused, with_defaults
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.testing.forward import (
    Block,
    Conventions,
    Real,
)
from mscvt.testing.sources import (
    features_of,
    layers_of,
    mtp_layers,
    sizes_of,
    source_tensors,
)
from mscvt.testing.variants import STANDARD

_COMPUTED = "test_roles_compute_the_logits_of_the_real_class"


def _is_refused(options: Options, family: Family, config: Mapping[str, Any]) -> bool:
    """Whether models of this type can't have one of the options, or the dialect can't have the model."""
    faults, dialect, model_type = Faults(), dialect_of(options), family.model_type
    check_refused(options, model_type.refused, model_type.name, faults)
    if faults or dialect.IS_USUAL:
        return bool(faults)
    h, layers, filled = sizes_of(family, config), layers_of(family, config), with_defaults(options)
    try:
        dialect.check(filled, h, family.parts(layers, h))
    except MscvtError:
        return True
    rules = dialect.rules(filled, h)
    return dialect.NAME not in model_type.dialects and bool(family.rules(h, rules.blocks, rules.prefixes))


@cache
def _registry() -> Registry:
    return load_registry()


@cache
def _tensors(model_type: str, config: str) -> Mapping[str, torch.Tensor]:
    return source_tensors(_registry().family(model_type), json.loads(config))


class Contract:
    """The attributes of `FamilyContract`, its fixtures, and what is derived from them."""

    model_type: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    real: ClassVar[Real | None] = None
    conventions: ClassVar[Conventions | None] = None
    blocks: ClassVar[Mapping[str, Block]] = {}
    not_computed: ClassVar[str] = ""
    renamed_fields: ClassVar[Mapping[str, str]] = {}
    not_saved: ClassVar[Collection[str]] = ()
    whole: ClassVar[Collection[str]] = ()
    differs: ClassVar[Collection[str]] = ()
    cases: ClassVar[Collection[str]] = tuple(STANDARD)
    options: ClassVar[Mapping[str, Options]] = {}

    @classmethod
    def variants(cls) -> dict[str, Options]:
        """The options to convert under: those that mean something to the kinds of the model's own layers."""
        family = _registry().family(cls.model_type)
        features, depth = features_of(family, cls.config) | {None}, mtp_layers(family, cls.config)
        standard = {name: STANDARD[name][1] for name in cls.cases if STANDARD[name][0] in features}
        return {
            name: options
            for name, options in standard.items()
            if (options.mtp_num_layers or 0) <= depth and not _is_refused(options, family, cls.config)
        } | dict(cls.options)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test that takes `variant` once for each set of options."""
        if "variant" in metafunc.fixturenames:
            variants = self.variants()
            metafunc.parametrize("variant", variants.values(), ids=variants.keys())

    @pytest.fixture
    def registry(self) -> Registry:
        """All plugins of the environment."""
        return _registry()

    @pytest.fixture
    def family(self, registry: Registry) -> Family:
        """The family under test."""
        return registry.family(self.model_type)

    @pytest.fixture
    def tensors(self) -> dict[str, torch.Tensor]:
        """The source's tensors."""
        return dict(_tensors(self.model_type, json.dumps(self.config)))

    def older_config(self) -> dict[str, Any]:
        """`config` as transformers 4 wrote it."""
        older = dict(self.config)
        rope = older.pop("rope_parameters", None)
        if rope is not None:
            older["rope_theta"] = rope["rope_theta"]
        for new, old in {"dtype": "torch_dtype", **self.renamed_fields}.items():
            if new in older:
                older[old] = older.pop(new)
        return older
