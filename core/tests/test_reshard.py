"""From Megatron to Megatron: the same bytes as the original gives under the target's options."""

from dataclasses import replace

import pytest
import torch
from small_plugins import ACME, registry_of
from small_plugins import CONFIG as PLAIN

from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.formats.megatron_torch.reader import MegatronSource
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_reshard
from mscvt.jobs.request import Request
from mscvt.jobs.reshard import models_of
from mscvt.plugins.registry import load_registry
from mscvt.testing import contents_in, hf2mg, mg2hf, save_huggingface, source_tensors
from small_configurations import DEEPSEEK, MIXTURE, QWEN

TP, PP, EP = (f"target_{name}_parallel_size" for name in ("tensor", "pipeline", "expert"))
ETP, GROUPED, SPREAD = "expert_tensor_parallel_size", "moe_grouped_gemm", "moe_tp_extend_ep"
VIRTUAL, LISTED, NOOP = "num_layers_per_virtual_pipeline_stage", "num_layer_list", "noop_layers"
PADDED, MTP, SPLIT, IMPL = "make_vocab_size_divisible_by", "mtp_num_layers", "mla_mm_split", "transformer_impl"
TIED = {**QWEN, "tie_word_embeddings": True}
REGISTRY = load_registry()


def source(folder, config, registry=REGISTRY, *, lacking=()):
    tensors = source_tensors(registry.recognise(config), config)
    return save_huggingface(folder, config, {name: t for name, t in tensors.items() if not name.endswith(lacking)})


def reshard(there, target, registry=REGISTRY, removed=(), replicas="equal", **asked):
    request = Request(there, Options(**asked), removed=frozenset(removed), replicas=replicas)
    conversion = prepare_reshard(request, registry)
    run_conversion(conversion, target, Settings())
    return conversion


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CASES = {  # configuration, options of the source, what is asked for, what is taken away, options of the target
    "tensor and pipeline": (QWEN, {TP: 2, PP: 2}, {TP: 1, PP: 4}, (), {PP: 4}),
    "what is not asked for stays": (QWEN, {TP: 2, PP: 2, VIRTUAL: 1}, {TP: 1}, (), {PP: 2, VIRTUAL: 1}),
    "virtual stages are taken away": (QWEN, {PP: 2, VIRTUAL: 1}, {TP: 2}, (VIRTUAL,), {TP: 2, PP: 2}),
    "noop layers move": (QWEN, {PP: 2, NOOP: (1, 4)}, {PP: 3, NOOP: (5, 0)}, (), {PP: 3, NOOP: (5, 0)}),
    "noop layers are taken away": (QWEN, {PP: 2, NOOP: (1, 4)}, {}, (NOOP,), {PP: 2}),
    "layer list is taken away": (QWEN, {PP: 2, LISTED: (1, 3)}, {PP: 4}, (LISTED,), {PP: 4}),
    "layer list is another": (QWEN, {PP: 2, LISTED: (1, 3)}, {LISTED: (4, 0)}, (), {PP: 2, LISTED: (4, 0)}),
    "stages go both ways": (QWEN, {TP: 2}, {PP: 2, "schedules_method": "dualpipev"}, (),
                            {TP: 2, PP: 2, "schedules_method": "dualpipev"}),
    "stages go one way": (QWEN, {PP: 2, "schedules_method": "dualpipev"}, {}, ("schedules_method", PP), {}),
    "padding follows the ranks": (QWEN, {TP: 2, PADDED: 5}, {TP: 1}, (), {PADDED: 5}),
    "padding is added": (QWEN, {TP: 2}, {PADDED: 8}, (), {TP: 2, PADDED: 8}),
    "padding is taken away": (QWEN, {TP: 2, PADDED: 5}, {}, (PADDED,), {TP: 2}),
    "fused norms": (QWEN, {PP: 2}, {IMPL: "transformer_engine"}, (), {PP: 2, IMPL: "transformer_engine"}),
    "norms of their own": (QWEN, {IMPL: "transformer_engine"}, {TP: 2}, (IMPL,), {TP: 2}),
    "tied, onto the last stage": (TIED, {}, {TP: 2, PP: 2}, (), {TP: 2, PP: 2}),
    "tied, from the last stage": (TIED, {TP: 2, PP: 2}, {}, (PP,), {TP: 2}),
    "reduced layers": (QWEN, {"num_layers": 2}, {PP: 2}, (), {"num_layers": 2, PP: 2}),
    "experts together": (MIXTURE, {TP: 2, EP: 2}, {EP: 4, GROUPED: True}, (), {TP: 2, EP: 4, GROUPED: True}),
    "experts one by one": (MIXTURE, {EP: 4, GROUPED: True}, {TP: 2}, (GROUPED, EP), {TP: 2}),
    "experts are cut as all is": (MIXTURE, {TP: 2, EP: 2}, {TP: 1}, (), {EP: 2}),
    "whole experts stay whole": (MIXTURE, {TP: 2, EP: 2, ETP: 1}, {EP: 4}, (), {TP: 2, EP: 4, ETP: 1}),
    "whole experts are cut": (MIXTURE, {TP: 2, EP: 2, ETP: 1}, {}, (ETP,), {TP: 2, EP: 2}),
    "experts are spread": (MIXTURE, {TP: 2, GROUPED: True}, {SPREAD: True, EP: 2}, (),
                           {TP: 2, GROUPED: True, SPREAD: True, EP: 2}),
    "experts are spread no more": (MIXTURE, {TP: 2, EP: 2, SPREAD: True}, {}, (SPREAD,), {TP: 2, EP: 2}),
    "latent attention with MTP": (DEEPSEEK, {TP: 2, PP: 2, MTP: 1, SPLIT: True}, {TP: 1, EP: 2, GROUPED: True},
                                  (SPLIT,), {PP: 2, MTP: 1, EP: 2, GROUPED: True}),
    "latent attention is divided": (DEEPSEEK, {MTP: 1}, {TP: 2, PP: 4, SPLIT: True}, (),
                                    {TP: 2, PP: 4, SPLIT: True, MTP: 1}),
    "MTP layers are dropped": (DEEPSEEK, {TP: 2, PP: 2, MTP: 1}, {MTP: 0}, (), {TP: 2, PP: 2}),
    "MTP layers are taken away": (DEEPSEEK, {PP: 2, MTP: 1}, {IMPL: "transformer_engine"}, (MTP,),
                                  {PP: 2, IMPL: "transformer_engine"}),
}  # fmt: skip


@pytest.mark.parametrize(("config", "there", "asked", "removed", "target"), CASES.values(), ids=CASES)
def test_other_layout_is_what_the_original_gives_under_its_options(config, there, asked, removed, target, tmp_path):
    hf = source(tmp_path / "hf", config)
    hf2mg(hf, tmp_path / "there", Options(**there))
    expected = hf2mg(hf, tmp_path / "expected", Options(**target))
    found = reshard(tmp_path / "there", tmp_path / "found", removed=removed, **asked)
    assert files_in(tmp_path / "there") != files_in(tmp_path / "expected")
    assert files_in(tmp_path / "found") == files_in(tmp_path / "expected")
    assert found.training_flags == expected.training_flags
    assert "optimizer states are not carried over" in found.notes


@pytest.mark.parametrize("asked", [{TP: 2}, {MTP: 0}], ids=["kept", "dropped"])
def test_tensors_that_the_original_did_not_repeat_are_given_back_by_neither(asked, tmp_path):
    hf = source(tmp_path / "hf", DEEPSEEK, lacking=("shared_head.head.weight", "layers.4.embed_tokens.weight"))
    hf2mg(hf, tmp_path / "there", Options(**{MTP: 1}))
    hf2mg(hf, tmp_path / "expected", Options(**{MTP: 1, **asked}))
    reshard(tmp_path / "there", tmp_path / "found", **asked)
    assert files_in(tmp_path / "found") == files_in(tmp_path / "expected")
    mg2hf(tmp_path / "found", tmp_path / "back")
    original = contents_in(hf)
    kept = {name: what for name, what in original.items() if MTP not in asked or "layers.4." not in name}
    assert len(kept) < len(original) or MTP not in asked
    assert contents_in(tmp_path / "back") == kept


@pytest.mark.parametrize("repeats", [True, False])
def test_ends_are_given_back_from_both_layouts_alike_where_nothing_is_recorded(repeats, tmp_path):
    family = REGISTRY.family("deepseek3")
    family = replace(family, model_type=replace(family.model_type, repeats_ends=repeats))
    registry = replace(REGISTRY, families={"deepseek3": family})
    hf2mg(source(tmp_path / "hf", DEEPSEEK), tmp_path / "there", Options(**{MTP: 1}), registry=registry)
    path = tmp_path / "there/iter_0000001/mp_rank_00/model_optim_rng.pt"
    state = torch.load(path, weights_only=False)
    vars(state["args"]).pop("absent_mtp_copies", None)
    torch.save(state, path)
    reshard(tmp_path / "there", tmp_path / "found", registry, **{TP: 2})
    backs = [tmp_path / f"{name}-back" for name in ("there", "found")]
    for name, back in zip(("there", "found"), backs, strict=True):
        mg2hf(tmp_path / name, back, registry=registry)
    there, found = map(contents_in, backs)
    assert found == there
    assert ("model.layers.4.embed_tokens.weight" in found) is repeats


def test_sizes_of_the_wanted_model_are_those_of_what_is_kept(checkpoints):
    request = Request(checkpoints / "latent", Options(**{MTP: 0, PADDED: 5, TP: 2}))
    there, wanted = models_of(MegatronSource(request.load_dir), request, REGISTRY)
    changed = {name for name in there.h if there.h[name] != wanted.h[name]}
    assert changed == {"mtp_num_layers", "padded_vocab_size"}
    assert (wanted.h["mtp_num_layers"], wanted.h["padded_vocab_size"]) == (0, 30)
    assert [layer.mtp for layer in wanted.kept] == [None] * 4


def refused(folder, tmp_path, registry=REGISTRY, removed=(), **asked):
    with pytest.raises(MscvtError) as caught:
        reshard(folder, tmp_path / "found", registry, removed, **asked)
    assert not (tmp_path / "found").exists()
    return caught.value


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A dense model and one with latent attention and an MTP layer, on one rank each."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, config, options in (("dense", QWEN, {}), ("latent", DEEPSEEK, {MTP: 1})):
        hf2mg(source(folder / "hf" / name, config), folder / name, Options(**options))
    return folder


REFUSED = {
    "layers": ("dense", {"num_layers": 2}, "--num-layers 2: layers can't be left out on this way"),
    "dense layers": ("latent", {"first_k_dense_replace": 0}, "--first-k-dense-replace 0: layers can't be left out"),
    "experts of none, before all else": (
        "dense",
        {EP: 2, PP: 3},
        "--target-expert-parallel-size 2: qwen3 models have no experts",
    ),
    "no such size": ("dense", {TP: 0}, "--target-tensor-parallel-size 0: must be at least 1"),
    "heads": ("dense", {TP: 4}, "2 kv groups (num_key_value_heads) are not divisible by"),
    "stages": ("dense", {PP: 3}, "4 layers are not divisible by --target-pipeline-parallel-size 3"),
    "modules with MTP": ("latent", {IMPL: "transformer_engine"}, "--mtp-num-layers 1 can't be combined"),
    "more MTP layers": ("latent", {MTP: 2}, "--mtp-num-layers 2: the model has 1 MTP layers"),
}


@pytest.mark.parametrize(("name", "asked", "said"), REFUSED.values(), ids=REFUSED)
def test_options_that_no_other_layout_has_are_refused_and_nothing_is_written(name, asked, said, checkpoints, tmp_path):
    error = refused(checkpoints / name, tmp_path, **asked)
    assert said in str(error)
    assert error.hint


def test_option_of_the_source_that_does_not_fit_is_taken_away_as_the_hint_says(tmp_path):
    hf2mg(source(tmp_path / "hf", QWEN), tmp_path / "there", Options(**{PP: 2, VIRTUAL: 1}))
    error = refused(tmp_path / "there", tmp_path, **{PP: 1})
    assert error.hint.endswith("taken away by --num-layers-per-virtual-pipeline-stage none.")
    assert "none" not in refused(tmp_path / "there", tmp_path, **{PP: 1, VIRTUAL: 1}).hint


def test_option_that_the_model_type_refuses_is_refused(tmp_path):
    registry = registry_of(replace(ACME, refused={NOOP: "have no slots"}))
    hf2mg(source(tmp_path / "hf", PLAIN, registry), tmp_path / "there", registry=registry)
    error = refused(tmp_path / "there", tmp_path, registry, noop_layers=(4, 5))
    assert "--noop-layers 4,5: acme have no slots" in str(error)


def test_replicas_must_be_equal_unless_the_first_is_asked_for(tmp_path):
    hf = source(tmp_path / "hf", QWEN)
    hf2mg(hf, tmp_path / "there", Options(**{TP: 2}))
    hf2mg(hf, tmp_path / "expected", Options())
    path = tmp_path / "there/iter_0000001/mp_rank_01/model_optim_rng.pt"
    state = torch.load(path, weights_only=False)
    state["model"]["decoder.final_layernorm.weight"][3] += 1
    torch.save(state, path)
    error = refused(tmp_path / "there", tmp_path, removed=(TP,))
    assert "decoder.final_layernorm.weight (model of rank tp 1, pp 0, ep 0) differs from" in str(error)
    reshard(tmp_path / "there", tmp_path / "found", removed=(TP,), replicas="first")
    assert files_in(tmp_path / "found") == files_in(tmp_path / "expected")
