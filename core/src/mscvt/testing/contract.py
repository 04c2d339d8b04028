"""The tests that every family must pass; a plugin's suite inherits them.

The source checkpoints are made from the family's own description, so a wrong name or a wrong shape is
wrong on both sides here. A plugin's suite therefore also compares `source_shapes` with what the model's
real class writes; `docs/writing-a-plugin.md` shows how.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import Request, prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.verify import verify_checkpoints
from mscvt.model.family import MODEL, MTP, Layer
from mscvt.model.hyperparameters import hyperparameters, model_fields
from mscvt.model.options import TABLE, Options
from mscvt.plugins.registry import Family, Registry, load_registry
from mscvt.testing.checkpoints import digest, save_huggingface
from mscvt.testing.sources import mtp_layers, one_name_per_role, source_shapes, source_tensors
from mscvt.testing.variants import STANDARD


class FamilyContract:
    """Inherit it as `class TestMine(FamilyContract)`, with these attributes.

    Attributes:
        model_type: The value of `--model-type-hf`.
        config: A small `config.json` as transformers 5 writes it: four decoder layers, two MTP layers if
            the family has any; kv groups, FFN sizes and vocabulary divisible by 2, experts by 4; sizes
            otherwise different from each other, so that no two axes can be confused.
        renamed_fields: Fields of `config` that transformers 4 calls by another name; `dtype` and
            `rope_parameters` need not be listed.
        cases: The standard cases (`mscvt.testing.variants`) to convert under: all that mean something to
            the family, unless a variant of a configuration is content with a few.
        options: Further parallel options to convert under, by the name of the case.
    """

    model_type: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    renamed_fields: ClassVar[Mapping[str, str]] = {}
    cases: ClassVar[Collection[str]] = tuple(STANDARD)
    options: ClassVar[Mapping[str, Options]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test that takes `variant` once for each set of options."""
        if "variant" in metafunc.fixturenames:
            features = load_registry().family(self.model_type).features | {None}
            variants = {name: STANDARD[name][1] for name in self.cases if STANDARD[name][0] in features}
            variants |= self.options
            metafunc.parametrize("variant", variants.values(), ids=variants.keys())

    @pytest.fixture
    def registry(self) -> Registry:
        """All plugins of the environment."""
        return load_registry()

    @pytest.fixture
    def family(self, registry: Registry) -> Family:
        """The family under test."""
        return registry.family(self.model_type)

    @pytest.fixture
    def tensors(self, family: Family) -> dict[str, torch.Tensor]:
        """The source's tensors."""
        return source_tensors(family, self.config)

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

    # Configuration

    def test_model_type_is_recognised_from_config_alone(self, registry: Registry) -> None:
        """Exactly this model type claims the configuration."""
        for config in (self.config, self.older_config()):
            assert registry.recognise(config).model_type.name == self.model_type

    def test_both_generations_of_config_read_alike(self, family: Family) -> None:
        """What transformers 4 and 5 write gives the same sizes."""
        older = self.older_config()
        assert older != self.config, "config is what transformers 4 wrote; give what transformers 5 writes"
        read = [hyperparameters(config, family.model_type, "config.json") for config in (self.config, older)]
        assert read[0] == read[1]

    def test_required_field_is_named_where_config_lacks_it(self, family: Family) -> None:
        """No required size is guessed."""
        required = [field for field in model_fields(family.model_type).values() if field.default is ...]
        for field in required:
            lacking = {name: value for name, value in self.config.items() if name not in field.paths}
            with pytest.raises(MscvtError, match=field.paths[0]):
                hyperparameters(lacking, family.model_type, "config.json")

    # Names and layers

    def test_names_have_a_place_for_every_number(self, family: Family) -> None:
        """A layer's names contain `{layer}`, an expert's `{expert}` too, and no two are the same."""
        kinds = {layer.kind for layer in self.layers(family)}
        if mtp_layers(family, self.config):
            kinds.add(MTP)
        for kind in (MODEL, *sorted(kinds)):
            names = family.names(kind)
            assert names, f"no names for {kind} layers"
            assert len(set(names.values())) == len(names), f"two roles of {kind} layers have one name"
            for role, name in names.items():
                fields = {field for _, field, _, _ in Formatter().parse(name) if field is not None}
                expected = set() if kind == MODEL else {"layer"}
                if role.startswith("moe.expert."):
                    expected.add("expert")
                assert fields == expected, f"{role} of {kind} layers: {name}"

    def test_layers_are_enumerated_in_order(self, family: Family) -> None:
        """Decoder layers come first, then MTP layers, all numbered as in the source."""
        layers = self.layers(family)
        decoder = [layer for layer in layers if layer.mtp is None]
        mtp = [layer for layer in layers if layer.mtp is not None]
        assert layers == [*decoder, *mtp]
        assert [layer.index for layer in layers] == list(range(len(layers)))
        assert len(decoder) == self.config["num_hidden_layers"]
        assert [layer.mtp for layer in mtp] == list(range(mtp_layers(family, self.config)))

    def layers(self, family: Family) -> list[Layer]:
        """The layers of `config`."""
        values = hyperparameters(self.config, family.model_type, "config.json")
        return list(family.call("mscvt_layers", hyperparameters=values))

    # Conversion

    def test_conversion_gives_back_every_byte_without_flags(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], variant: Options, tmp_path: Path
    ) -> None:
        """The checkpoint's args say all that the way back has to know."""
        hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
        save_huggingface(hf, self.config, tensors, shards=2)
        there = prepare_to_megatron(Request(hf, variant), registry)
        run_conversion(there, mg, Settings())
        run_conversion(prepare_to_huggingface(Request(mg, Options()), registry), back, Settings())
        is_whole = variant.num_layers is None and (variant.mtp_num_layers or 0) == mtp_layers(family, self.config)
        left_out = there.plan.left_out
        assert is_whole != bool(left_out)
        if is_whole:
            assert verify_checkpoints(hf=hf, mg=mg, registry=registry).is_equal
        expected = {name: _content(tensor) for name, tensor in tensors.items() if name not in left_out}
        assert _contents_in(back) == expected

    def test_config_beside_the_way_back_reads_as_the_source(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        """The copied configuration says the same sizes, though it is of the older generation."""
        hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
        save_huggingface(hf, self.older_config(), tensors)
        options = Options(mtp_num_layers=mtp_layers(family, self.config))
        run_conversion(prepare_to_megatron(Request(hf, options), registry), mg, Settings())
        way_back = prepare_to_huggingface(Request(mg, Options(), hf_cfg_dir=hf), registry)
        run_conversion(way_back, back, Settings())
        written = read_config(back)
        assert registry.recognise(written).model_type.name == self.model_type
        assert hyperparameters(written, family.model_type, back) == hyperparameters(self.config, family.model_type, hf)

    # Refusals

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
        beyond = {"layer": len(self.layers(family)), "expert": 0}
        extra = {name.format(**beyond) for layer in self.layers(family) for name in family.names(layer.kind).values()}
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
        (tmp_path / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        for row in TABLE:
            if row.feature is not None and row.feature not in family.features:
                asked: dict[str, Any] = {row.name: True if row.default is False else 2}
                options = Options(**asked)
                with pytest.raises(MscvtError, match=f"{row.flag}.*{self.model_type} models have no"):
                    prepare_to_megatron(Request(tmp_path, options), registry)


def _content(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], str]:
    return str(tensor.dtype), tuple(tensor.shape), digest(tensor)


def _contents_in(folder: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    found: dict[str, tuple[str, tuple[int, ...], str]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: _content(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    return found
