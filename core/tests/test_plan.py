"""Plans of a small made-up family: what they say, which files they write, in which order they work."""

import pytest
from small_models import EP, PP, TP, H, description, shards_of, source_of

from mscvt.description.description import Alias
from mscvt.errors import MscvtError
from mscvt.jobs.plans import plan_to_huggingface, plan_to_megatron
from mscvt.parallel.grid import Rank
from mscvt.plan.files import by_rank
from mscvt.plan.joined import Joined
from mscvt.plan.planner import Words, make_plan
from mscvt.tensors.info import ITEM_SIZES, TensorInfo

WORDS = Words("the source is wrong", "add it", "unknown", "remove it", "the target")


def test_files_are_those_of_all_ranks_with_their_labels():
    described = description(**{TP: 2, PP: 2, EP: 2})
    plan = plan_to_megatron(described, source_of(described))
    assert [file.path for file in plan.files] == [
        f"iter_0000001/mp_rank_{t:02d}_{p:03d}_{e:03d}/model_optim_rng.pt"
        for t in range(2)
        for p in range(2)
        for e in range(2)
    ]
    assert dict(plan.files[3].labels) == {"tp": 0, "pp": 1, "ep": 1}
    assert {rank for rank, _, _ in plan.files[3].tensors} == {Rank(0, 1, 1)}
    assert plan.files[3].tensors[Rank(0, 1, 1), "model", "output_layer.weight"] == ("BF16", (7, 10))
    assert plan.nbytes == sum(file.nbytes for file in plan.files)


@pytest.mark.parametrize("options", [{}, {TP: 2, PP: 2}, {TP: 2, EP: 2}, {EP: 4, "moe_grouped_gemm": True}], ids=str)
@pytest.mark.parametrize("depth", [0, 1])
def test_units_write_every_tensor_of_every_file_once(options, depth):
    described = description(**options, mtp_num_layers=depth)
    there = plan_to_megatron(described, source_of(described))
    for plan in (there, plan_to_huggingface(described, shards_of(there))):
        written = [target for unit in plan.units() for content in unit.contents for target in content.targets]
        assert len(written) == len(set(written))
        assert set(written) == {name for file in plan.files for name in file.tensors}
        assert [unit.number for unit in plan.units()] == list(range(plan.unit_count))
        declared = {name: what for file in plan.files for name, what in file.tensors.items()}
        for unit in plan.units():
            for content in unit.contents:
                assert all(declared[target] == (content.dtype, content.shape) for target in content.targets)


def test_work_runs_in_the_order_in_which_first_sources_lie_in_their_files():
    described = description(**{TP: 2, "moe_grouped_gemm": True})
    names = sorted(source_of(described), key=lambda name: name[::-1])
    source = {
        name: info._replace(file=names.index(name) % 2, offset=10_000 * names.index(name))
        for name, info in source_of(described).items()
    }
    plan = plan_to_megatron(described, source)
    found = []
    for unit in plan.units():
        content = unit.contents[0]
        first = source[content.sources[content.copies[0].source]]
        found.append((first.file, first.offset + 2 * content.copies[0].pair.right))
    assert found == sorted(found)
    assert len(found) > 10


def test_last_stages_copies_are_compared_with_the_first_stages_tensor():
    described = description({**H, "tie_word_embeddings": True}, **{TP: 2, PP: 2})
    shards = shards_of(plan_to_megatron(described, source_of(described)))
    equal = plan_to_huggingface(described, shards).equal
    first, last = "embedding.word_embeddings.weight", "output_layer.weight"
    assert [pair for pair in equal if pair[1][2] == last] == [
        ((Rank(t, 0, 0), "model", first), (Rank(t, 1, 0), "model", last), 70) for t in range(2)
    ]


def test_tensor_larger_than_the_limit_has_a_file_of_its_own_and_no_file_is_empty():
    described = description()
    shards = shards_of(plan_to_megatron(described, source_of(described)))
    plan = plan_to_huggingface(described, shards, shard_bytes=1)
    assert [len(file.tensors) for file in plan.files] == [1] * len(source_of(described))


def test_tensor_that_keeps_its_dtype_keeps_it_on_the_way_back():
    described = description()
    shards = shards_of(plan_to_megatron(described, source_of(described)))
    (file,) = plan_to_huggingface(described, shards, dtype="F16").files
    found = {name: dtype for name, (dtype, _) in file.tensors.items()}
    assert found.pop("model.layers.1.gate.bias") == "F32"
    assert set(found.values()) == {"F16"}


def test_replicas_are_one_content_with_many_targets():
    described = description(**{TP: 2, EP: 2})
    plan = plan_to_megatron(described, source_of(described))
    contents = {content.targets[0][2]: content for unit in plan.units() for content in unit.contents}
    assert len(contents["decoder.final_layernorm.weight"].targets) == 4
    assert len(contents["output_layer.weight"].targets) == 2


def test_all_that_is_wrong_with_a_source_is_shown_at_once():
    described = description()
    source = source_of(described)
    del source["model.norm.weight"]
    source["model.layers.0.self_attn.q_proj.bias"] = TensorInfo("BF16", (12,), 0, 0)
    source["model.layers.1.gate.weight"] = TensorInfo("BF16", (5, 10), 0, 0)
    with pytest.raises(MscvtError) as caught:
        plan_to_megatron(described, source)
    assert list(caught.value.faults) == [
        "missing: model.norm.weight",
        "no rule takes: model.layers.0.self_attn.q_proj.bias",
        "model.layers.1.gate.weight has the shape [5, 10], expected [4, 10] from config.json",
    ]


def test_tensors_that_hold_no_weights_are_left_out_and_said_so():
    described = description()
    extra = {"model.layers.0.rotary.inv_freq": TensorInfo("F32", (2,), 0, 0)}
    plan = plan_to_megatron(described, source_of(described) | extra, left_out={"*.inv_freq": "holds no weights"})
    assert dict(plan.left_out) == {"model.layers.0.rotary.inv_freq": "holds no weights"}


def test_mtp_layers_that_nobody_asked_for_are_left_out_and_said_so():
    with_mtp = source_of(description(mtp_num_layers=1))
    plan = plan_to_megatron(description(), with_mtp)
    assert set(plan.left_out.values()) == {"MTP layers not asked for"}
    assert plan.left_out.keys() == with_mtp.keys() - source_of(description()).keys()


def test_repeated_tensors_must_be_equal_and_are_given_back():
    described = description(mtp_num_layers=1)
    assert described.aliases == {
        "model.layers.2.embed.weight": Alias("model.embed_tokens.weight", is_written=True, mark="0.embedding"),
        "model.layers.2.head.weight": Alias("lm_head.weight", is_written=True, mark="0.head"),
    }
    source = source_of(described)
    repeated = {"model.layers.2.head.weight": source["lm_head.weight"]}
    plan = plan_to_megatron(described, source | repeated)
    assert plan.equal == (("lm_head.weight", "model.layers.2.head.weight", 140),)
    back = plan_to_huggingface(described, shards_of(plan))
    assert {name for file in back.files for name in file.tensors} == source.keys() | described.aliases.keys()


def test_repeated_tensor_of_another_shape_is_refused():
    described = description(mtp_num_layers=1)
    wrong = {"model.layers.2.head.weight": TensorInfo("BF16", (13, 10), 0, 0)}
    with pytest.raises(MscvtError, match=r"model.layers.2.head.weight repeats lm_head.weight"):
        plan_to_megatron(described, source_of(described) | wrong)


def test_dtypes_are_kept_or_converted_but_for_what_keeps_its_own():
    described = description()
    key = "decoder.layers.1.mlp.router.expert_bias"
    for dtype, expected in ((None, "BF16"), ("F32", "F32"), ("F16", "F16")):
        (file,) = plan_to_megatron(described, source_of(described), dtype=dtype).files
        found = {name: what for (_, _, name), (what, _) in file.tensors.items()}
        assert found.pop(key) == "F32"
        assert set(found.values()) == {expected}


def test_rank_that_holds_only_padding_has_the_dtype_of_the_others():
    h = {**H, "vocab_size": 3, "padded_vocab_size": 8}
    described = description(h, **{TP: 2})
    plan = plan_to_megatron(described, source_of(described, "F16"))
    name = Rank(1, 0, 0), "model", "embedding.word_embeddings.weight"
    assert plan.files[1].tensors[name] == ("F16", (4, 10))
    (content,) = [c for unit in plan.units() for c in unit.contents if name in c.targets]
    assert (content.sources, [copy.source for copy in content.copies]) == ((), [None])
    joined = Joined(description({**h, "padded_vocab_size": 3}), described)
    shards = shards_of(plan_to_megatron(joined.source.description, source_of(joined.source.description, "F16")))
    planned = make_plan(joined, shards, lambda tensors: by_rank(tensors, described.topology.grid, str), WORDS)
    assert planned.files[1].tensors[name] == ("F16", (4, 10))


def test_tensors_of_two_dtypes_in_one_are_refused_unless_a_dtype_is_asked_for():
    described = description()
    source = source_of(described)
    name = "model.layers.0.mlp.up_proj.weight"
    source[name] = TensorInfo("F32", source[name].shape, 0, 0)
    with pytest.raises(MscvtError, match=r"different dtypes \(BF16, F32\)"):
        plan_to_megatron(described, source)
    plan_to_megatron(described, source, dtype="BF16")


@pytest.mark.parametrize("asked", [None, "BF16"])
def test_experts_of_different_dtypes_keep_their_own_unless_one_is_asked_for(asked):
    described = description(**{EP: 2})
    source = source_of(described)
    for part in ("gate", "up", "down"):
        name = f"model.layers.1.experts.2.{part}.weight"
        source[name] = source[name]._replace(dtype="F32")
    plan = plan_to_megatron(described, source, dtype=asked)
    key = "decoder.layers.1.mlp.experts.local_experts.{}.linear_fc{}.weight"
    found = {
        (rank, expert): {
            plan.files[rank].tensors[Rank(0, 0, rank), "model", key.format(expert, fc)][0] for fc in (1, 2)
        }
        for rank in (0, 1)
        for expert in (0, 1)
    }
    assert found == {(0, 0): {"BF16"}, (0, 1): {"BF16"}, (1, 0): {asked or "F32"}, (1, 1): {"BF16"}}


def test_all_that_is_wrong_with_shards_is_shown_at_once():
    described = description(**{TP: 2})
    shards = shards_of(plan_to_megatron(described, source_of(described)))
    rank = Rank(1, 0, 0)
    del shards[rank, "model", "decoder.final_layernorm.weight"]
    shards[rank, "model", "decoder.layers.0.lora"] = TensorInfo("BF16", (2,), 1, 0)
    shards[rank, "model", "output_layer.weight"] = TensorInfo("BF16", (8, 10), 1, 0)
    with pytest.raises(MscvtError) as caught:
        plan_to_huggingface(described, shards)
    where = "(model of rank tp 1, pp 0, ep 0)"
    assert list(caught.value.faults) == [
        f"missing: decoder.final_layernorm.weight {where}",
        f"no rule knows: decoder.layers.0.lora {where}",
        f"output_layer.weight {where} has the shape [8, 10], expected [7, 10] from the checkpoint's args",
    ]


def test_huggingface_files_are_full_up_to_their_limit_and_no_tensor_is_divided():
    described = description()
    shards = shards_of(plan_to_megatron(described, source_of(described)))
    plan = plan_to_huggingface(described, shards, shard_bytes=500)
    numbers = range(1, len(plan.files) + 1)
    assert [file.path for file in plan.files] == [f"model-{n:05d}-of-{numbers[-1]:05d}.safetensors" for n in numbers]
    assert [dict(file.labels) for file in plan.files] == [{"file": n} for n in numbers]
    assert all(file.nbytes <= 500 or len(file.tensors) == 1 for file in plan.files)
    for file, following in zip(plan.files, plan.files[1:], strict=False):
        dtype, shape = next(iter(following.tensors.values()))
        size = ITEM_SIZES[dtype]
        for extent in shape:
            size *= extent
        assert file.nbytes + size > 500
    assert sum(len(file.tensors) for file in plan.files) == len(source_of(described))
