"""From one topology to any other without a detour: the same bytes as by way of Hugging Face's tensors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walks import numbered, run, targets

from mscvt.dialects.options import Options
from mscvt.errors import Faults, MscvtError
from mscvt.jobs.models import Model, model_from_config
from mscvt.layout.pairs import Loop, Pair
from mscvt.model.options import rows
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.plan.by_shard import ByShard
from mscvt.plan.contents import Copy
from mscvt.plan.joined import Joined, joined_form
from mscvt.plan.targets import Form
from mscvt.plugins.registry import load_registry
from mscvt.testing.sources import features_of
from random_models import WITH_EXPERTS, WITH_LATENT_ATTENTION, Case, cases

REGISTRY = load_registry()
KEPT = ("num_layers", "first_k_dense_replace", "mtp_num_layers")
"""Options that decide which tensors of the model are there; both sides must agree on them."""


def divisors(number: int, most: int = 4) -> list[int]:
    return [n for n in range(1, most + 1) if number % n == 0]


@st.composite
def other_options(draw: st.DrawFn, case: Case, layers: int) -> dict:
    """Any other options under which the same model can be laid out."""
    options = {name: case.options[name] for name in KEPT if name in case.options}
    tp = options["target_tensor_parallel_size"] = draw(st.sampled_from(divisors(case.tp)))
    pp = options["target_pipeline_parallel_size"] = draw(st.integers(1, 3))
    way = draw(st.sampled_from(["even", "list", "dualpipev", *(["virtual"] if pp > 1 else [])]))
    if way == "list":
        marks = sorted(draw(st.lists(st.integers(0, layers), min_size=pp - 1, max_size=pp - 1)))
        options["num_layer_list"] = tuple(b - a for a, b in zip([0, *marks], [*marks, layers], strict=True))
    else:
        unit = pp
        if way == "virtual":
            unit *= draw(st.integers(1, 2))
            options["num_layers_per_virtual_pipeline_stage"] = unit // pp
        elif way == "dualpipev":
            unit *= 2
            options["schedules_method"] = "dualpipev"
        slots = (-(-layers // unit) + draw(st.integers(0, 1))) * unit
        if slots > layers:
            noop = draw(st.permutations(range(slots)))[: slots - layers]
            options["noop_layers"] = tuple(sorted(noop))
    if case.config["vocab_size"] % tp or draw(st.booleans()):
        options["make_vocab_size_divisible_by"] = draw(st.sampled_from([1, 3]))
    if case.model_type in WITH_EXPERTS:
        options |= draw(expert_options(case, tp))
    if case.model_type in WITH_LATENT_ATTENTION:
        options["mla_mm_split"] = draw(st.booleans())
    if not case.mtp:
        options["transformer_impl"] = draw(st.sampled_from(["local", "transformer_engine"]))
    return options


@st.composite
def expert_options(draw: st.DrawFn, case: Case, tp: int) -> dict:
    experts = case.config.get("num_experts") or case.config["n_routed_experts"]
    options = {"moe_grouped_gemm": draw(st.booleans())}
    way = draw(st.sampled_from(["cut", "whole", "extended"]))
    parallel = divisors(experts)
    if way == "whole":
        options["expert_tensor_parallel_size"] = 1
        parallel = [ep for ep in parallel if ep % tp == 0 or tp % ep == 0]
    elif way == "extended" and experts % tp == 0:
        options["moe_tp_extend_ep"] = True
        parallel = divisors(experts // tp)
    options["target_expert_parallel_size"] = draw(st.sampled_from(parallel))
    return options


@st.composite
def pairs_of_models(draw: st.DrawFn) -> tuple[Model, Model]:
    """The same model under two sets of options."""
    case = draw(cases())
    family = REGISTRY.family(case.model_type)
    features = features_of(family, case.config)
    source = model_from_config(family, case.config, options_for(features, case.options), "config.json")
    options = options_for(features, draw(other_options(case, sum(layer.mtp is None for layer in source.kept))))
    return source, model_from_config(family, case.config, options, "config.json")


def options_for(features: frozenset[str], options: dict) -> Options:
    """The options that mean something to a model with these features."""
    table = rows(Options)
    return Options(**{name: value for name, value in options.items() if table[name].feature in {None, *features}})


@settings(max_examples=80)
@given(pairs_of_models())
def test_copies_from_one_topology_to_another_give_what_the_way_by_huggingface_gives(models):
    source, target = (model.description for model in models)
    expected = ByShard(source).expected
    assert ByShard(target).expected == expected
    tensors = dict(zip(expected, numbered(*expected.values()), strict=True))
    shards = run(ByShard(source), tensors)
    back = run(ByHuggingFace(source), shards)
    assert {name: back[name].tobytes() for name in tensors} == {name: t.tobytes() for name, t in tensors.items()}
    by_huggingface = run(ByShard(target), back)
    joined = Joined(source, target)
    assert {name: tensor.shape for name, tensor in shards.items()} == joined.expected
    direct = run(joined, shards)
    assert direct.keys() == by_huggingface.keys()
    for name, tensor in by_huggingface.items():
        assert direct[name].shape == tensor.shape, name
        assert direct[name].tobytes() == tensor.tobytes(), name
    faults = Faults()
    joined.prove(faults)
    assert not faults


@settings(max_examples=30)
@given(pairs_of_models())
def test_what_is_said_to_be_equal_is_equal_and_all_that_is_not_read(models):
    source, target = (model.description for model in models)
    expected = ByShard(source).expected
    shards = run(ByShard(source), dict(zip(expected, numbered(*expected.values()), strict=True)))
    for grouping in (ByHuggingFace(source), Joined(source, target)):
        read = {
            target.sources[copy.source]
            for target in targets(grouping)
            for copy in target.copies
            if copy.source is not None
        }
        equal = [(kept, other) for kept, others in grouping.equal(replicas=True) for other in others]
        assert all((shards[kept] == shards[other]).all() for kept, other in equal)
        others = {other for _, other in equal}
        assert not others & read
        assert all(not shards[name].any() for name in shards.keys() - others - read), "only padding is not read"
        assert len(others) == len(equal)


def test_models_of_different_tensors_can_not_be_joined():
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 8,
        "intermediate_size": 6,
        "num_attention_heads": 2,
        "vocab_size": 10,
    }
    family = REGISTRY.family("llama2")

    def described(layers=None, **changes):
        return model_from_config(family, config | changes, Options(num_layers=layers), "config.json").description

    def proven(source, target):
        faults = Faults()
        Joined(source, target).prove(faults)
        return faults

    whole = described()
    assert not proven(whole, described())
    assert not proven(whole, described(1)), "the target may leave out layers"
    with pytest.raises(MscvtError) as caught:
        proven(described(1), whole).raise_if_any("wrong")
    assert len(caught.value.faults) == 9
    assert all("model.layers.1." in fault for fault in caught.value.faults)
    with pytest.raises(MscvtError, match=r"lm_head.weight is on one side only"):
        proven(whole, described(tie_word_embeddings=True)).raise_if_any("wrong")


def test_what_lies_in_zeros_on_the_way_is_zeros_at_the_end():
    half_empty = Form((4,), (Copy(0, Pair(0, 2, (Loop(2, 1, 1),))), Copy(None, Pair(2, 0, (Loop(2, 1, 0),)))), (0,))
    turned = Form((4,), (Copy(0, Pair(0, 2, (Loop(2, 1, 1),))), Copy(0, Pair(2, 0, (Loop(2, 1, 1),)))), (0,))
    copies = joined_form(turned, [half_empty], [7]).copies
    assert copies == (Copy(None, Pair(0, 0, (Loop(2, 1, 0),))), Copy(0, Pair(2, 2, (Loop(2, 1, 1),))))
