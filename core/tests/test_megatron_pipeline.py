"""Where Megatron-LM's own options put layers and ranks: tables by hand, after megatron-core's functions."""

import pytest

from mscvt.dialects.megatron import topology
from mscvt.dialects.megatron.layout_text import stages_of
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, TENSOR
from mscvt.model.options import with_defaults

NAMES = {
    "tp": "target_tensor_parallel_size",
    "pp": "target_pipeline_parallel_size",
    "ep": "target_expert_parallel_size",
    "etp": "expert_tensor_parallel_size",
    "first": "decoder_first_pipeline_num_layers",
    "last": "decoder_last_pipeline_num_layers",
    "each": "num_layers_per_virtual_pipeline_stage",
    "chunks": "num_virtual_stages_per_pipeline_rank",
    "embedding": "account_for_embedding_in_pipeline_split",
    "loss": "account_for_loss_in_pipeline_split",
    "layout": "pipeline_model_parallel_layout",
    "mtp": "mtp_num_layers",
}


def made(layers, there=None, **options):
    asked = Options(dialect="megatron", **{NAMES[name]: value for name, value in options.items()})
    return topology(with_defaults(asked), layers, there)


def placed(found):
    """The slots of each stage, chunk by chunk."""
    stages = {}
    for chunk in found.chunks:
        stages.setdefault(chunk.stage, []).append("".join(map(str, chunk.slots)))
    return [" ".join(stages[stage]) for stage in sorted(stages)]


PLACED = {
    "even": (6, {"pp": 3}, ["01", "23", "45"]),
    "first": (7, {"pp": 3, "first": 3}, ["012", "34", "56"]),
    "last": (7, {"pp": 3, "last": 1}, ["012", "345", "6"]),
    "first and last": (8, {"pp": 4, "first": 1, "last": 3}, ["0", "12", "34", "567"]),
    "first of two": (3, {"pp": 2, "first": 1}, ["0", "12"]),
    "first of one": (3, {"first": 3}, ["012"]),
    "length of virtual stages": (8, {"pp": 2, "each": 2}, ["01 45", "23 67"]),
    "number of virtual stages": (8, {"pp": 2, "chunks": 2}, ["01 45", "23 67"]),
    "number of uneven virtual stages": (8, {"pp": 2, "chunks": 2, "first": 2}, ["0 4", "123 567"]),
    "embedding counts": (5, {"pp": 3, "embedding": True}, ["0", "12", "34"]),
    "loss counts": (5, {"pp": 3, "loss": True}, ["01", "23", "4"]),
    "both count in chunks": (6, {"pp": 2, "chunks": 2, "embedding": True, "loss": True}, ["0 34", "12 5"]),
    "layout": (5, {"pp": 2, "layout": "Ett|t|t|tL"}, ["01 3", "2 4"]),
    "layout with empty stages": (2, {"pp": 2, "layout": "E|t|t|L"}, [" 1", "0 "]),
    "layout of one chunk each": (3, {"pp": 3, "layout": "Et|tt,|L"}, ["0", "12", ""]),
}


@pytest.mark.parametrize(("layers", "options", "expected"), PLACED.values(), ids=PLACED)
def test_layers_stand_where_megatron_builds_them(layers, options, expected):
    assert placed(made(layers, **options)) == expected


def test_chunks_have_names_only_where_a_stage_has_several():
    assert {chunk.name for chunk in made(4, pp=2).chunks} == {"model"}
    assert made(8, pp=2, chunks=2).chunks_of(1) == ["model0", "model1"]
    assert made(2, pp=2, each=1).chunks_of(0) == ["model"]
    assert made(2, [(0, 0)], pp=2, each=1).chunks_of(0) == ["model0"], "as the reader calls it"


def test_ends_and_mtp_stand_where_a_layout_says():
    found = made(3, pp=4, mtp=1, layout="Et|t|tm|L")
    assert (found.first.stage, found.last.stage, found.mtp.stage, found.last_layer.stage) == (0, 3, 2, 2)
    assert made(3, pp=3, mtp=1).mtp == made(3, pp=3).last


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("EttL", ["EttL"]),
        ("Et*3|(tt|)*2tmL", ["Ettt", "tt", "tt", "tmL"]),
        ("E,t|t,L", ["Et", "tL"]),
        ("E|(t|t*2|)*2L", ["E", "t", "tt", "t", "tt", "L"]),
    ],
)
def test_layout_is_unrolled(text, stages):
    assert stages_of(text) == stages


REFUSED = {
    "rest": (7, {"pp": 3, "first": 2}, "are not divisible by --target-pipeline-parallel-size 3"),
    "more than there are": (3, {"pp": 2, "first": 4}, "3 layers, without --decoder-first-pipeline-num-layers 4"),
    "counted": (5, {"pp": 2, "embedding": True, "loss": True}, "5 layers and 2 counted besides"),
    "two ways": (8, {"pp": 2, "first": 3, "loss": True}, "each divide the layers in their own way"),
    "two ways to say chunks": (8, {"pp": 2, "each": 2, "chunks": 2}, "say the same"),
    "length of uneven ones": (8, {"pp": 2, "first": 2, "each": 1}, "stages have 2, 6 layers"),
    "chunks": (6, {"pp": 2, "chunks": 2}, "stages of 3, 3 layers are not divisible by"),
    "chunks of one stage": (4, {"chunks": 2}, "a single stage is not divided into 2"),
    "words": (4, {"pp": 2, "layout": "Ett|xtL"}, "can't be understood"),
    "too long": (4, {"layout": "E(t*9999)*9999L"}, "can't be understood"),
    "stages": (4, {"pp": 2, "layout": "Et|tt|tL"}, "has 3 stages, --target-pipeline-parallel-size is 2"),
    "layers": (4, {"pp": 2, "layout": "Et|tL"}, "has 2 layers (t), the model has 4"),
    "MTP": (2, {"pp": 2, "layout": "Et|tmL"}, "has 1 MTP layers (m), the model has 0"),
    "order": (2, {"pp": 2, "layout": "tE|tL"}, "must begin with the one E"),
    "MTP before layers": (2, {"pp": 2, "mtp": 1, "layout": "Em|ttL"}, "MTP layers (m) must be in one stage"),
    "MTP in two stages": (2, {"pp": 2, "mtp": 2, "layout": "Ettm|mL"}, "MTP layers (m) must be in one stage"),
    "MTP early": (1, {"pp": 2, "mtp": 1, "layout": "E|tm||L"}, "MTP layers (m) must be in one stage"),
    "layout and others": (4, {"pp": 2, "first": 2, "layout": "Ett|ttL"}, "can't be used together with"),
    "experts in unequal parts": (4, {"tp": 4, "etp": 3}, "--expert-tensor-parallel-size 3: must divide"),
    "experts in more parts": (4, {"tp": 2, "etp": 4}, "--expert-tensor-parallel-size 4: must divide"),
    "ranks": (4, {"tp": 1 << 11, "ep": 1 << 11}, "more than 1048576 ranks"),
}


@pytest.mark.parametrize(("layers", "options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_contradicts_itself_is_refused(layers, options, said):
    with pytest.raises(MscvtError) as caught:
        made(layers, **options)
    assert said in str(caught.value)
    assert caught.value.hint


def test_every_rank_is_written_and_a_training_run_has_some_of_them():
    every = {(t, e) for t in range(2) for e in range(4)}
    grid = made(2, tp=2, ep=4, etp=1).grid
    assert set(grid.places) == every
    assert grid.counts == {TENSOR: 2, EXPERT: 4, EXPERT_TENSOR: 1}
    assert set(made(2, every, tp=2, ep=4, etp=1).grid.places) == every
    trained = {(0, 0), (1, 1), (0, 2), (1, 3)}
    assert set(made(2, trained, tp=2, ep=4, etp=1).grid.places) == trained


@pytest.mark.parametrize(("tp", "ep", "etp"), [(2, 4, 1), (4, 2, 2), (4, 3, 2), (6, 2, 3), (2, 2, 2), (4, 4, 1)])
def test_ranks_of_a_training_run_hold_everything(tp, ep, etp):
    grid = made(2, [], tp=tp, ep=ep, etp=etp).grid
    found = {tuple(place[d] for d in (EXPERT, EXPERT_TENSOR)) for place in grid.places.values()}
    assert found == {(e, i) for e in range(ep) for i in range(etp)}
    assert {place[TENSOR] for place in grid.places.values()} == set(range(tp))
