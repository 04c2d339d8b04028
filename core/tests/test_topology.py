"""Placement against tables written by hand, and against the rules written down once more in another way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscvt.dialects import mindspeed
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, TENSOR
from mscvt.model.options import with_defaults
from mscvt.parallel.grid import Grid, Rank
from mscvt.parallel.topology import Chunk


def topology(layers, **options):
    names = {"tp": "target_tensor_parallel_size", "pp": "target_pipeline_parallel_size"}
    names |= {"ep": "target_expert_parallel_size", "etp": "expert_tensor_parallel_size"}
    names |= {"vpp": "num_layers_per_virtual_pipeline_stage"}
    return mindspeed.topology(with_defaults(Options(**{names.get(k, k): v for k, v in options.items()})), layers)


def placed(top):
    """One text for each real layer: stage, chunk and number inside it."""
    return [f"{chunk.stage} {chunk.name} {number}" for chunk, number in top.place_layers()]


def slots(top):
    return {f"{chunk.stage} {chunk.name}": list(chunk.slots) for chunk in top.chunks}


TABLES = {
    "one stage": (3, {}, ["0 model 0", "0 model 1", "0 model 2"]),
    "even": (4, {"pp": 2}, ["0 model 0", "0 model 1", "1 model 0", "1 model 1"]),
    "noop first and last": (
        4,
        {"pp": 2, "noop_layers": (0, 5)},
        ["0 model 1", "0 model 2", "1 model 0", "1 model 1"],
    ),
    "whole stage of noop": (2, {"pp": 2, "noop_layers": (2, 3)}, ["0 model 0", "0 model 1"]),
    "layer list": (4, {"pp": 3, "num_layer_list": (3, 0, 1)}, ["0 model 0", "0 model 1", "0 model 2", "2 model 0"]),
    "virtual": (
        8,
        {"pp": 2, "vpp": 2},
        [
            "0 model0 0",
            "0 model0 1",
            "1 model0 0",
            "1 model0 1",
            "0 model1 0",
            "0 model1 1",
            "1 model1 0",
            "1 model1 1",
        ],
    ),
    "virtual with noop": (
        6,
        {"pp": 2, "vpp": 2, "noop_layers": (3, 4)},
        ["0 model0 0", "0 model0 1", "1 model0 0", "0 model1 1", "1 model1 0", "1 model1 1"],
    ),
    "one virtual stage": (2, {"pp": 2, "vpp": 1}, ["0 model0 0", "1 model0 0"]),
    "dualpipev": (
        8,
        {"pp": 2, "schedules_method": "dualpipev"},
        [
            "0 model0 0",
            "0 model0 1",
            "1 model0 0",
            "1 model0 1",
            "1 model1 0",
            "1 model1 1",
            "0 model1 0",
            "0 model1 1",
        ],
    ),
    "dualpipev with noop": (
        3,
        {"pp": 2, "schedules_method": "dualpipev", "noop_layers": (3,)},
        ["0 model0 0", "1 model0 0", "1 model1 0"],
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_layers_stand_where_the_table_says(name):
    layers, options, expected = TABLES[name]
    assert placed(topology(layers, **options)) == expected


def test_ends_are_the_first_and_the_last_chunk():
    top = topology(8, pp=2, vpp=2)
    assert (top.first, top.last) == (Chunk(0, "model0", (0, 1)), Chunk(1, "model1", (6, 7)))
    assert topology(4, pp=4).last == Chunk(3, "model", (3,))
    assert topology(2, pp=2, num_layer_list=(0, 2)).first == Chunk(0, "model", ())


def test_end_of_dualpipev_is_the_second_chunk_of_the_first_stage():
    top = topology(8, pp=2, schedules_method="dualpipev")
    assert (top.first, top.last) == (Chunk(0, "model0", (0, 1)), Chunk(0, "model1", (6, 7)))
    assert slots(top) == {"0 model0": [0, 1], "0 model1": [6, 7], "1 model0": [2, 3], "1 model1": [4, 5]}


def test_end_stays_where_all_its_slots_are_noop():
    top = topology(2, pp=2, noop_layers=(2, 3))
    assert top.last == Chunk(1, "model", (2, 3))


GRIDS = [
    ({"tp": 2, "ep": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)]),
    ({"tp": 2, "ep": 2, "etp": 1}, [(0, 0), (1, 1)]),
    ({"tp": 4, "ep": 2, "etp": 1}, [(0, 0), (1, 1), (2, 0), (3, 1)]),
    ({"tp": 2, "ep": 4, "etp": 1}, [(0, 0), (0, 2), (1, 1), (1, 3)]),
    ({"tp": 3, "ep": 1, "etp": 1}, [(0, 0), (1, 0), (2, 0)]),
    ({"tp": 1, "ep": 3, "etp": 1}, [(0, 0), (0, 1), (0, 2)]),
    ({"tp": 2, "ep": 3, "moe_tp_extend_ep": True}, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
]


@pytest.mark.parametrize(("options", "grid"), GRIDS)
def test_ranks_that_are_written(options, grid):
    top = topology(2, **options)
    assert sorted(top.grid.places) == grid
    assert list(top.grid.ranks()) == [Rank(t, 0, e) for t, e in grid]


def test_ranks_of_all_stages_and_of_one():
    top = topology(4, tp=2, pp=2)
    assert list(top.grid.ranks()) == [Rank(0, 0, 0), Rank(0, 1, 0), Rank(1, 0, 0), Rank(1, 1, 0)]
    assert list(top.grid.ranks(1)) == [Rank(0, 1, 0), Rank(1, 1, 0)]
    assert (top.grid.tensor, top.grid.pipeline, top.grid.expert) == (2, 2, 1)


def test_counts_and_places_of_the_ways_to_spread_experts():
    cut = topology(2, tp=2, ep=3).grid
    assert cut.counts == {TENSOR: 2, EXPERT: 3, EXPERT_TENSOR: 2}
    assert cut.places[1, 2] == {TENSOR: 1, EXPERT: 2, EXPERT_TENSOR: 1}
    whole = topology(2, tp=2, ep=4, etp=1).grid
    assert whole.counts == {TENSOR: 2, EXPERT: 4, EXPERT_TENSOR: 1}
    assert whole.places[1, 3] == {TENSOR: 1, EXPERT: 3, EXPERT_TENSOR: 0}
    extended = topology(2, tp=2, ep=3, moe_tp_extend_ep=True).grid
    assert extended.counts == {TENSOR: 2, EXPERT: 6, EXPERT_TENSOR: 1}
    buckets = [extended.places[t, e][EXPERT] for e in range(3) for t in range(2)]
    assert buckets == [0, 1, 2, 3, 4, 5]  # ep * TP + tp
    assert extended.places[1, 2][EXPERT_TENSOR] == 0


def test_holders_are_the_ranks_that_stand_at_the_same_place():
    grid = topology(2, tp=2, ep=4, etp=1).grid
    assert grid.holders([TENSOR]) == {(0,): ((0, 0), (0, 2)), (1,): ((1, 1), (1, 3))}
    assert grid.holders([]) == {(): ((0, 0), (0, 2), (1, 1), (1, 3))}
    assert grid.holders([EXPERT, EXPERT_TENSOR])[3, 0] == ((1, 3),)
    assert list(grid.holders([EXPERT])) == [(0,), (1,), (2,), (3,)]
    assert grid.holders([TENSOR, EXPERT]).keys() == {(0, 0), (0, 2), (1, 1), (1, 3)}


def test_holders_of_other_dimensions_are_not_those_asked_for_before():
    grid = Grid(2, 1, 1, {"a": 2, "b": 1}, {(0, 0): {"a": 1, "b": 0}, (1, 0): {"a": 0, "b": 0}})
    assert grid.holders(["a"]) == {(0,): ((1, 0),), (1,): ((0, 0),)}
    assert grid.holders(["b"]) == {(0,): ((0, 0), (1, 0))}
    assert grid.holders(("a",)) is grid.holders(["a"])


def test_chunks_of_a_stage_are_named_in_order():
    top = topology(8, pp=2, vpp=2)
    assert [top.chunks_of(stage) for stage in range(2)] == [["model0", "model1"]] * 2
    assert topology(4, pp=2).chunks_of(1) == ["model"]


@st.composite
def stages(draw):
    """Options that are allowed, and how many slots there are."""
    pp = draw(st.integers(1, 5))
    way = draw(st.sampled_from(["even", "list", "dualpipev", *(["virtual"] if pp > 1 else [])]))
    if way == "list":
        counts = tuple(draw(st.lists(st.integers(0, 4), min_size=pp, max_size=pp).filter(any)))
        return {"pp": pp, "num_layer_list": counts}, sum(counts)
    options, count = {"pp": pp}, pp * draw(st.integers(1, 4))
    if way == "virtual":
        options["vpp"] = draw(st.integers(1, 3))
        count *= options["vpp"]
    if way == "dualpipev":
        options["schedules_method"] = "dualpipev"
        count *= 2
    noop = draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count - 1))
    return options | {"noop_layers": tuple(noop)}, count


def owner(slot, options, count):
    """(stage, part, number) of a slot, asked slot by slot; the rules of MindSpeed's training side."""
    pp = options["pp"]
    if counts := options.get("num_layer_list"):
        stage = next(p for p in range(pp) if slot < sum(counts[: p + 1]))
        return stage, "model", slot - sum(counts[:stage])
    if virtual := options.get("vpp"):
        return slot // virtual % pp, f"model{slot // virtual // pp}", slot % virtual
    if "schedules_method" in options:
        half = count // pp // 2
        run = slot // half  # 0 .. pp-1 down the first chunks, pp .. 2pp-1 back up the second ones
        return (run, "model0", slot % half) if run < pp else (2 * pp - 1 - run, "model1", slot % half)
    return slot // (count // pp), "model", slot % (count // pp)


@given(stages())
def test_every_real_layer_has_the_place_that_its_slot_has(drawn):
    options, count = drawn
    noop = options.get("noop_layers", ())
    top = topology(count - len(noop), **options)
    expected = [owner(slot, options, count) for slot in range(count) if slot not in noop]
    assert [(chunk.stage, chunk.name, number) for chunk, number in top.place_layers()] == expected
    assert sorted(slot for chunk in top.chunks for slot in chunk.slots) == list(range(count))
    assert {chunk.stage for chunk in top.chunks} == set(range(options["pp"]))


@given(st.integers(1, 6), st.integers(1, 6))
def test_whole_experts_are_all_written_and_so_is_every_tensor_rank(tp, ep):
    if tp % ep and ep % tp:
        with pytest.raises(MscvtError, match="one must be a multiple of the other"):
            topology(1, tp=tp, ep=ep, etp=1)
        return
    grid = topology(1, tp=tp, ep=ep, etp=1).grid.places
    assert {t for t, _ in grid} == set(range(tp))
    assert {e for _, e in grid} == set(range(ep))
    assert len(grid) == max(tp, ep)


REFUSED = {
    "layers not divisible": (5, {"pp": 2}, "5 layers are not divisible by --target-pipeline-parallel-size 2"),
    "slots not divisible": (4, {"pp": 2, "noop_layers": (0,)}, "5 slots"),
    "virtual not divisible": (6, {"pp": 2, "vpp": 2}, "--num-layers-per-virtual-pipeline-stage 2"),
    "virtual in one stage": (4, {"vpp": 2}, "--num-layers-per-virtual-pipeline-stage 2 means nothing with one stage"),
    "odd for dualpipev": (6, {"pp": 2, "schedules_method": "dualpipev"}, "even number of layers a stage, here 3"),
    "virtual and dualpipev": (8, {"pp": 2, "vpp": 2, "schedules_method": "dualpipev"}, "dualpipev"),
    "list too short": (4, {"pp": 3, "num_layer_list": (2, 2)}, "has 2 entries, --target-pipeline-parallel-size is 3"),
    "list sum": (4, {"pp": 2, "num_layer_list": (2, 1)}, "sums to 3, the model has 4 layers"),
    "list negative": (4, {"pp": 2, "num_layer_list": (5, -1)}, "negative"),
    "list and virtual": (4, {"pp": 2, "vpp": 1, "num_layer_list": (2, 2)}, "--num-layers-per-virtual-pipeline-stage"),
    "list and noop": (3, {"pp": 2, "noop_layers": (0,), "num_layer_list": (2, 2)}, "--noop-layers"),
    "noop repeated": (4, {"noop_layers": (1, 1)}, "1 given more than once"),
    "noop beyond": (4, {"noop_layers": (5,)}, "5 is out of range, there are 5 slots"),
    "noop negative": (4, {"noop_layers": (-1,)}, "-1 is out of range"),
    "etp": (4, {"tp": 4, "etp": 2}, "--expert-tensor-parallel-size 2: must be 1 or"),
    "too many ranks": (1, {"tp": 2048, "ep": 1024}, "more than 1048576 ranks"),
    "etp and extend": (4, {"tp": 2, "etp": 1, "moe_tp_extend_ep": True}, "contradict"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_do_not_fit_are_refused_by_name_and_value(name):
    layers, options, message = REFUSED[name]
    with pytest.raises(MscvtError) as caught:
        topology(layers, **options)
    assert message in str(caught.value)


def test_all_faults_are_shown_at_once():
    with pytest.raises(MscvtError) as caught:
        topology(3, tp=3, ep=2, etp=1, pp=2, noop_layers=(9, 9))
    assert len(caught.value.faults) == 4
    for text in ("given more than once", "out of range", "multiple of the other", "not divisible"):
        assert text in str(caught.value)
