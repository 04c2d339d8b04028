"""The tests that every family must pass; a plugin's suite inherits them.

The source checkpoints are made from the family's own description, so a wrong name or a wrong shape is wrong on both
sides there. The tests of `real` compare with what the model's own class writes and computes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from mscvt.dialects import mindspeed
from mscvt.dialects.mindspeed.options import Options
from mscvt.errors import Faults, MscvtError
from mscvt.formats.huggingface.config import CONFIG, read_config
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.jobs.verify import verify_checkpoints
from mscvt.layout.rules import fields_in
from mscvt.model.family import MODEL, MTP
from mscvt.model.hyperparameters import hyperparameters, model_fields
from mscvt.model.options import Row, check_refused, rows, with_defaults
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry, load_registry
from mscvt.testing.checkpoints import save_huggingface
from mscvt.testing.conversions import content_of, contents_in, hf2mg, mg2hf
from mscvt.testing.forward import (
    TOLERANCE,
    Block,
    Conventions,
    Real,
    Reference,
    disagreement,
    forward,
    logits_of,
    random_reference,
    tensors_by_role,
)
from mscvt.testing.sources import (
    describe_whole,
    features_of,
    layers_of,
    mtp_layers,
    one_name_per_role,
    shapes_in,
    sizes_of,
    source_shapes,
    source_tensors,
    without_mtp,
)
from mscvt.testing.variants import STANDARD

_COMPUTED = "test_roles_compute_the_logits_of_the_real_class"
_REAL_TESTS = (
    "test_names_and_shapes_are_those_of_the_real_class",
    _COMPUTED,
    "test_logits_are_equal_after_both_ways",
)


def _is_refused(options: Options, family: Family) -> bool:
    """Whether models of this type can't have one of the options."""
    faults = Faults()
    check_refused(options, family.model_type.refused, family.model_type.name, faults)
    return bool(faults)


class FamilyContract:
    """Inherit it as `class TestMine(FamilyContract)`, with these attributes.

    Attributes:
        model_type: The value of `--model-type-hf`.
        config: A small `config.json` as transformers 5 writes it: four decoder layers, two MTP layers if
            the family can have as many; kv groups, FFN sizes and vocabulary divisible by 2, experts by 4; sizes
            otherwise different from each other, so that no two axes can be confused.
        real: The model's configuration class and its class for causal language modeling, which the names, shapes and
            logits are compared with; None where transformers has no such classes.
        conventions: Arithmetic of the real class that no `config.json` says (`mscvt.testing.forward`).
        blocks: Functions that compute blocks with roles of the family's own.
        not_computed: Why the logits can't be computed from the roles, where neither helps; swapped names that fit are
            not noticed then, and want a test of their own.
        renamed_fields: Fields of `config` that transformers 4 calls by another name; `dtype` and
            `rope_parameters` need not be listed.
        whole: Keys of matrices in the family's own rules that every tensor parallel rank holds all of, on purpose.
        cases: The standard cases (`mscvt.testing.variants`) to convert under: all that mean something to
            the layers of `config`, unless a variant of a configuration is content with a few.
        options: Further parallel options to convert under, by the name of the case.
    """

    model_type: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]
    real: ClassVar[Real | None] = None
    conventions: ClassVar[Conventions | None] = None
    blocks: ClassVar[Mapping[str, Block]] = {}
    not_computed: ClassVar[str] = ""
    renamed_fields: ClassVar[Mapping[str, str]] = {}
    whole: ClassVar[Collection[str]] = ()
    cases: ClassVar[Collection[str]] = tuple(STANDARD)
    options: ClassVar[Mapping[str, Options]] = {}

    def __init_subclass__(cls) -> None:
        """Leave out the tests of the real class where there is none."""
        for name in _REAL_TESTS:
            has_test = cls.real is not None and not (name == _COMPUTED and cls.not_computed)
            setattr(cls, name, getattr(FamilyContract, name) if has_test else None)

    @classmethod
    def variants(cls) -> dict[str, Options]:
        """The options to convert under: those that mean something to the kinds of the model's own layers."""
        family = load_registry().family(cls.model_type)
        features, depth = features_of(family, cls.config) | {None}, mtp_layers(family, cls.config)
        standard = {name: STANDARD[name][1] for name in cls.cases if STANDARD[name][0] in features}
        return {
            name: options
            for name, options in standard.items()
            if (options.mtp_num_layers or 0) <= depth and not _is_refused(options, family)
        } | dict(cls.options)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test that takes `variant` once for each set of options."""
        if "variant" in metafunc.fixturenames:
            variants = self.variants()
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
        read = [sizes_of(family, config) for config in (self.config, older)]
        assert read[0] == read[1]

    def test_required_field_is_named_where_config_lacks_it(self, family: Family) -> None:
        """No required size is guessed."""
        required = [field for field in model_fields(family.model_type).values() if field.default is ...]
        for field in required:
            lacking = {name: value for name, value in family.respelled(self.config).items() if name not in field.paths}
            with pytest.raises(MscvtError, match=field.paths[0]):
                hyperparameters(lacking, family.model_type, "config.json")

    # Names and layers

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
        h = sizes_of(family, self.config)
        rules = mindspeed.rules(with_defaults(Options()), is_tied=False)
        own = {rule.key for rule in family.rules(h, rules.blocks, rules.prefixes)}
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

    # Conversion

    def test_conversion_gives_back_every_byte_without_flags(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], variant: Options, tmp_path: Path
    ) -> None:
        """The checkpoint's args say all that the way back has to know."""
        hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
        save_huggingface(hf, self.config, tensors, shards=2)
        there = hf2mg(hf, mg, variant, registry=registry)
        mg2hf(mg, back, registry=registry)
        is_whole = variant.num_layers is None and (variant.mtp_num_layers or 0) == mtp_layers(family, self.config)
        left_out = there.plan.left_out
        assert is_whole != bool(left_out)
        if is_whole:
            assert verify_checkpoints(hf=hf, mg=mg, registry=registry).is_equal
        expected = {name: content_of(tensor) for name, tensor in tensors.items() if name not in left_out}
        assert contents_in(back) == expected

    def test_config_beside_the_way_back_reads_as_the_source(
        self, registry: Registry, family: Family, tensors: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        """The copied configuration says the same sizes, though it is of the older generation."""
        hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
        save_huggingface(hf, self.older_config(), tensors)
        hf2mg(hf, mg, Options(mtp_num_layers=mtp_layers(family, self.config)), registry=registry)
        mg2hf(mg, back, hf_cfg_dir=hf, registry=registry)
        written = read_config(back)
        assert registry.recognise(written).model_type.config_model_types == family.model_type.config_model_types
        assert sizes_of(family, written) == sizes_of(family, self.config)

    # The real class

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
