"""Megatron checkpoints of many ranks: what is in each file, and what they must agree on."""

import enum
import struct
import threading
import types
from argparse import Namespace

import pytest
import torch

from mscvt.errors import MscvtError
from mscvt.formats.megatron_torch import reader
from mscvt.formats.megatron_torch.reader import MegatronSource
from mscvt.parallel.grid import Rank
from mscvt.tensors.computing import values_of
from mscvt.tensors.info import TensorInfo

RANKS = [Rank(tensor, pipeline, 0) for tensor in range(2) for pipeline in range(2)]


class Backend(enum.Enum):
    FLASH = 1
    FUSED = 2


def weights(rank, names=("a", "b")):
    """Tensors of one shape, each with bytes of its own."""
    first = 1000 * rank.tensor + 100 * rank.pipeline
    return {name: torch.arange(6.0).view(2, 3) + first + 10 * number for number, name in enumerate(names)}


def shard(rank, **changes):
    state = {"args": Namespace(num_layers=4), "checkpoint_version": 3.0, "iteration": 7, "model": weights(rank)}
    return {name: value for name, value in (state | changes).items() if value is not ...}


def path_of(folder, rank):
    return folder / "iter_0000007" / f"mp_rank_{rank.tensor:02d}_{rank.pipeline:03d}" / "model_optim_rng.pt"


def checkpoint(folder, states):
    for rank, state in states.items():
        path = path_of(folder, rank)
        path.parent.mkdir(parents=True)
        torch.save(state, path)
    (folder / "latest_checkpointed_iteration.txt").write_text("7")
    return folder


def opened(folder):
    source = MegatronSource(folder)
    source.open_ranks(RANKS, 2, 1)
    return source


def content(source, name):
    info = source.tensors[name]
    return values_of(source.tensor(name), 0, (info.numel,), (1,)).view(info.shape)


def assert_has(source, states):
    expected = {
        (rank, chunk, key): tensor for rank, state in states.items() for chunk, key, tensor in tensors_of(state)
    }
    assert set(source.tensors) == expected.keys()
    assert len(source.tensors) == len(expected)
    for name, tensor in expected.items():
        assert torch.equal(content(source, name), tensor), name


def tensors_of(state):
    return [(chunk, key, t) for chunk in state if chunk.startswith("model") for key, t in state[chunk].items()]


def test_every_tensor_of_every_rank_is_its_own(tmp_path):
    states = {rank: shard(rank) for rank in RANKS}
    source = opened(checkpoint(tmp_path, states))
    assert_has(source, states)
    assert [path.parent.name for path in source.files] == [
        "mp_rank_00_000",
        "mp_rank_00_001",
        "mp_rank_01_000",
        "mp_rank_01_001",
    ]
    assert source.tensors[RANKS[2], "model", "b"] == TensorInfo(
        "F32", (2, 3), 2, source.tensors[RANKS[0], "model", "b"].offset
    )
    assert (RANKS[0], "model", "c") not in source.tensors
    assert (Rank(9, 9, 9), "model", "a") not in source.tensors


def test_equal_records_under_other_names_are_not_confused(tmp_path):
    states = {rank: shard(rank, model=weights(rank, "ab" if rank.tensor == 0 else "ba")) for rank in RANKS}
    folder = checkpoint(tmp_path, states)
    assert len({path_of(folder, rank).stat().st_size for rank in RANKS}) == 1
    assert_has(opened(folder), states)


def test_equal_pickles_over_other_places_are_not_confused(tmp_path):
    states = {rank: shard(rank) for rank in RANKS}
    folder = checkpoint(tmp_path, states)
    with torch.utils.serialization.config.patch({"save.storage_alignment": 256}):
        torch.save(states[RANKS[3]], path_of(folder, RANKS[3]))
    assert_has(opened(folder), states)


def test_shards_that_differ_in_weights_alone_are_parsed_once(tmp_path, monkeypatch):
    parsed = []

    def interpret(headers):
        parsed.append(headers.path)
        return parse(headers)

    parse = reader.interpret
    monkeypatch.setattr(reader, "interpret", interpret)
    states = {rank: shard(rank) for rank in RANKS[:3]} | {RANKS[3]: shard(RANKS[3], model=weights(RANKS[3], "abc"))}
    assert_has(opened(checkpoint(tmp_path, states)), states)
    assert [path.parent.name for path in parsed] == ["mp_rank_00_000", "mp_rank_01_001"]


def test_header_that_contradicts_is_found_in_a_shard_that_is_not_parsed(tmp_path):
    folder = checkpoint(tmp_path, {rank: shard(rank) for rank in RANKS})
    last = path_of(folder, RANKS[3])
    damaged = bytearray(last.read_bytes())
    at = damaged.index(b"PK\3\4", damaged.index(b"byteorder"))  # the header of the first data record
    struct.pack_into("<H", damaged, at + 28, struct.unpack_from("<H", damaged, at + 28)[0] + 8)
    last.write_bytes(damaged)
    source = opened(folder)
    assert torch.equal(content(source, (RANKS[2], "model", "a")), weights(RANKS[2])["a"])
    for _ in range(2):
        with pytest.raises(MscvtError, match=r"mp_rank_01_001.*contradicts"):
            source.tensor((RANKS[3], "model", "b"))


def test_tensors_are_read_from_many_threads(tmp_path):
    states = {rank: shard(rank) for rank in RANKS}
    source, found = opened(checkpoint(tmp_path, states)), []

    def read():
        found.extend(torch.equal(content(source, (rank, "model", "a")), states[rank]["model"]["a"]) for rank in RANKS)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 16


@pytest.mark.parametrize("args", [..., None, {}, {"num_layers": 4}, types.SimpleNamespace(num_layers=4)], ids=repr)
def test_args_of_any_form_are_read(args, tmp_path):
    states = {rank: shard(rank, args=args) for rank in RANKS}
    source = opened(checkpoint(tmp_path, states))
    assert source.args == ({"num_layers": 4} if args not in (..., None, {}) else {})
    assert_has(source, states)


def test_what_each_rank_recorded_is_told(tmp_path):
    states = {rank: shard(rank, args=Namespace(num_layers=4, rank=10 * rank.tensor)) for rank in RANKS}
    source = opened(checkpoint(tmp_path, states))
    assert source.args == {"num_layers": 4, "rank": 0}
    assert list(source.records) == RANKS
    for rank, record in source.records.items():
        assert record.args == {"num_layers": 4, "rank": 10 * rank.tensor}
        assert (record.iteration, record.checkpoint_version) == (7, 3.0)


def test_nothing_recorded_is_told_as_nothing(tmp_path):
    states = {rank: shard(rank, iteration=..., checkpoint_version=...) for rank in RANKS}
    source = opened(checkpoint(tmp_path, states))
    assert {(record.iteration, record.checkpoint_version) for record in source.records.values()} == {(None, None)}
    assert_has(source, states)


@pytest.mark.parametrize("version", [0, 1.0, 1, 1.99, -1, float("nan")])
def test_version_with_other_rows_in_qkv_is_refused(version, tmp_path):
    folder = checkpoint(tmp_path, {rank: shard(rank, checkpoint_version=version) for rank in RANKS})
    with pytest.raises(
        MscvtError, match=rf"model_optim_rng\.pt: its checkpoint_version is {version!r};.*q, k and v"
    ) as caught:
        MegatronSource(folder)
    assert "save it with a newer one" in caught.value.hint


@pytest.mark.parametrize("version", [2, 2.0, 3.0, 4])
def test_version_with_todays_rows_is_read(version, tmp_path):
    states = {rank: shard(rank, checkpoint_version=version) for rank in RANKS}
    assert_has(opened(checkpoint(tmp_path, states)), states)


def test_version_of_a_later_rank_is_looked_at(tmp_path):
    states = {rank: shard(rank) for rank in RANKS[:3]} | {RANKS[3]: shard(RANKS[3], checkpoint_version=1.0)}
    with pytest.raises(MscvtError, match=r"mp_rank_01_001.*checkpoint_version is 1\.0;"):
        opened(checkpoint(tmp_path, states))


@pytest.mark.parametrize("iteration", [8, ...])
def test_rank_of_another_iteration_is_refused(iteration, tmp_path):
    states = {rank: shard(rank) for rank in RANKS[:3]} | {RANKS[3]: shard(RANKS[3], iteration=iteration)}
    with pytest.raises(
        MscvtError, match=r"mp_rank_01_001.*of iteration (8|None), .*mp_rank_00_000.* of iteration 7"
    ) as caught:
        opened(checkpoint(tmp_path, states))
    assert "two checkpoints" in caught.value.hint


DIFFERENT = {
    "number": ({"num_layers": 4}, {"num_layers": 5}),
    "type": ({"swiglu": True}, {"swiglu": 1}),
    "text": ({"normalization": "RMSNorm"}, {"normalization": "LayerNorm"}),
    "list": ({"layers": [1, 2]}, {"layers": [1, 3]}),
    "lists_nested": ({"layers": [[1], [2, 3]]}, {"layers": [[1, 2], [3]]}),
    "set": ({"noop_layers": {1, 2}}, {"noop_layers": {1, 3}}),
    "dtype": ({"params_dtype": torch.bfloat16}, {"params_dtype": torch.float16}),
    "enum": ({"attention_backend": Backend.FLASH}, {"attention_backend": Backend.FUSED}),
    "missing": ({"num_experts": 8}, {}),
    "new": ({}, {"num_experts": 8}),
    "of_a_word_that_only_contains_rank": ({"q_lora_ranking": 1}, {"q_lora_ranking": 2}),
}
ALIKE = {
    "rank": ({"rank": 0, "local_rank": 0}, {"rank": 3, "local_rank": 1}),
    "path": (
        {"save": "/a", "tensorboard_dir": "/a", "data_path": ["x"]},
        {"save": "/b", "tensorboard_dir": "/b", "data_path": ["y"]},
    ),
    "time": ({"start_time": 1.0, "master_addr": "a"}, {"start_time": 2.0, "master_addr": "b"}),
    "none_and_missing": ({"num_experts": None}, {}),
    "set_in_another_order": ({"noop_layers": {8, 0}}, {"noop_layers": {0, 8}}),
    "not_a_number": ({"x": float("nan")}, {"x": float("nan")}),
    "large": ({"x": list(range(5000))}, {"x": list(range(5001))}),
    "tensor": ({"x": torch.ones(2)}, {"x": torch.ones(3)}),
}


def args_differ(folder, one, two):
    common = {"hidden_size": 8}
    states = {rank: shard(rank, args=Namespace(**common, **one)) for rank in RANKS[:3]}
    return checkpoint(folder, states | {RANKS[3]: shard(RANKS[3], args=Namespace(**common, **two))})


@pytest.mark.parametrize("name", DIFFERENT)
def test_rank_of_another_run_is_refused_by_name(name, tmp_path):
    one, two = DIFFERENT[name]
    with pytest.raises(MscvtError, match=r"mp_rank_01_001.*args differ from those of .*mp_rank_00_000") as caught:
        opened(args_differ(tmp_path, one, two))
    (fault,) = caught.value.faults
    assert fault.startswith(f"{next(iter(one or two))!r} is ")
    assert "two checkpoints" in caught.value.hint


@pytest.mark.parametrize("name", ALIKE)
def test_args_that_may_differ_between_ranks_are_not_compared(name, tmp_path):
    source = opened(args_differ(tmp_path, *ALIKE[name]))
    assert len(source.tensors) == 8


def test_args_that_share_structure_are_compared_in_little_time(tmp_path):
    def doubled(leaf):
        for _ in range(60):
            leaf = [leaf, leaf]
        return leaf

    assert len(opened(args_differ(tmp_path, {"x": doubled(1)}, {"x": doubled(2)})).tensors) == 8


def test_virtual_chunks_and_extra_states_are_told_apart(tmp_path):
    states = {
        rank: shard(
            rank, model=..., model0=weights(rank), model1=weights(rank, "bc"), optimizer={"model": weights(rank)}
        )
        for rank in RANKS
    }
    expected = {rank: {chunk: dict(state[chunk]) for chunk in ("model0", "model1")} for rank, state in states.items()}
    for state in states.values():
        state["model0"]["layer._extra_state"] = None
        state["model1"]["layer._extra_state"] = torch.ones(4, dtype=torch.uint8)
        state["model1"]["adapter.linear_in.lora_A.weight"] = torch.ones(2, 2)
    for state in expected.values():
        state["model1"]["adapter.linear_in.lora_A.weight"] = torch.ones(2, 2)
    assert_has(opened(checkpoint(tmp_path, states)), expected)


def test_key_that_is_in_no_chunk_is_unknown(tmp_path):
    source = opened(checkpoint(tmp_path, {rank: shard(rank) for rank in RANKS}))
    with pytest.raises(KeyError):
        source.tensor((RANKS[0], "model1", "a"))
