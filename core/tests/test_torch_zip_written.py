"""Files laid out before their tensors are known: byte for byte what `torch.save` makes of the same tensors."""

import io
import subprocess
import sys
import zipfile
import zlib
from argparse import Namespace

import pytest
import torch
from torch.utils.serialization import config as serialization_config
from torch_shards import ARGS, RANK, fill, plan, raw, state_of, tensors, unbacked, write_shard

from mscvt.errors import MscvtError
from mscvt.formats.megatron_torch.writer import Allocator
from mscvt.formats.torch_zip.archive import Directories
from mscvt.formats.torch_zip.pickler import EmptyTensor, pickled
from mscvt.formats.torch_zip.reader import load, read_headers, tensors_in
from mscvt.formats.torch_zip.skeleton import build_skeleton, write_skeleton
from mscvt.parallel.grid import Rank


@pytest.fixture
def written(tmp_path):
    return write_shard(tmp_path)


def test_file_is_what_torch_saves_up_to_the_record_that_names_it(written):
    path, made = written
    buffer = io.BytesIO()
    torch.save(state_of(made), buffer)
    ours, theirs = path.read_bytes(), buffer.getvalue()
    with zipfile.ZipFile(buffer) as archive:
        own = archive.getinfo("archive/.data/serialization_id")
        theirs_at = archive.start_dir
    with zipfile.ZipFile(path) as archive:
        assert archive.start_dir == own.header_offset
        ours_at = archive.start_dir
    assert ours[:ours_at] == theirs[: own.header_offset]
    entries = theirs[theirs_at : theirs.rindex(b"PK\1\2")]
    assert ours[ours_at : ours_at + len(entries)] == entries
    assert ours[ours_at + len(entries) :].startswith(b"PK\6\6")


@pytest.mark.parametrize("memory_mapped", [True, False])
def test_torch_loads_what_was_written(written, memory_mapped):
    path, made = written
    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(path, weights_only=True, mmap=memory_mapped)
    assert list(state) == ["args", "checkpoint_version", "iteration", "model"]
    assert vars(state["args"]) == ARGS
    assert (state["checkpoint_version"], state["iteration"]) == (3.0, 7)
    assert list(state["model"]) == list(made)
    for key, tensor in state["model"].items():
        assert (tensor.dtype, tensor.shape, raw(tensor)) == (made[key].dtype, made[key].shape, raw(made[key]))
        assert tensor.is_contiguous()


def test_torch_maps_what_was_written_at_offsets_that_it_calculates(tmp_path, monkeypatch):
    path, made = tmp_path / "x.pt", tensors()
    wanted = plan(made, "model1") | plan(made, "model0")
    fill(path, made, wanted, ["model0", "model1"])
    monkeypatch.setenv("TORCH_SERIALIZATION_DEBUG", "1")  # compares with where the records really are
    with (
        serialization_config.patch({"load.calculate_storage_offsets": True}),
        torch.serialization.safe_globals([Namespace]),
    ):
        state = torch.load(path, weights_only=True, mmap=True)
    for chunk in ("model0", "model1"):
        assert {key: raw(tensor) for key, tensor in state[chunk].items()} == {key: raw(made[key]) for key in made}


def test_every_checksum_is_right_to_readers_of_zip_files(written):
    path, _ = written
    result = subprocess.run([sys.executable, "-m", "zipfile", "-t", path], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "Done testing\n")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(archive.read(entry) is not None for entry in archive.infolist())


def test_data_is_aligned_to_64_bytes(tmp_path):
    path, made = tmp_path / "x.pt", tensors()
    offsets = Allocator(ARGS, 7).allocate(path, plan(made), ["model"])
    assert len(offsets) == len(made)
    assert {offset % 64 for offset in offsets.values()} == {0}


def test_bytes_are_the_same_each_time(tmp_path):
    made = tensors()
    for name in ("one", "two"):
        fill(tmp_path / name, made, plan(made))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_virtual_chunks_stand_in_their_order_with_or_without_tensors(tmp_path):
    path, made = tmp_path / "x.pt", tensors(["F32", "BF16"])
    wanted = plan(made, "model2") | plan(made, "model0")
    offsets = Allocator(ARGS, 3).allocate(path, wanted, ["model0", "model1", "model2"])
    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(path, weights_only=True)
    assert list(state) == ["args", "checkpoint_version", "iteration", "model0", "model1", "model2"]
    assert {chunk: list(state[chunk]) for chunk in ("model0", "model1", "model2")} == {
        "model0": list(made),
        "model1": [],
        "model2": list(made),
    }
    assert len(set(offsets.values())) == 4


def test_offsets_of_a_file_that_was_allocated_before_are_the_same(tmp_path):
    path, made = tmp_path / "x.pt", tensors()
    offsets = Allocator(ARGS, 7).allocate(path, plan(made), ["model"])
    assert Allocator(ARGS, 7).offsets(path, plan(made), ["model"]) == offsets
    state = load(path)
    assert {(RANK, "model", key): info.offset for key, info in tensors_in(path, 0, state["model"], "model")} == offsets


def test_file_with_checksums_of_its_tensors_is_what_was_made_and_one_with_another_byte_is_not(tmp_path):
    path, made = write_shard(tmp_path)
    offsets = Allocator(ARGS, 7).offsets(path, plan(made), ["model"])
    written, ends = path.read_bytes(), {offset + made[name[2]].nbytes for name, offset in offsets.items()}
    tried = [0, 70, *offsets.values(), *(end + step for end in ends for step in (3, 8, 20)), len(written) - 1]
    for at in tried:
        path.write_bytes(written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :])
        if at in offsets.values() and at not in ends:  # a tensor's own
            assert Allocator(ARGS, 7).offsets(path, plan(made), ["model"]) == offsets
        else:
            with pytest.raises(MscvtError, match="is not what was made here"):
                Allocator(ARGS, 7).offsets(path, plan(made), ["model"])
    path.write_bytes(written + b"x")
    with pytest.raises(MscvtError, match="is not what was made here"):
        Allocator(ARGS, 7).offsets(path, plan(made), ["model"])


def test_checksums_written_again_change_nothing_and_are_no_part_of_what_makes_files_equal(tmp_path):
    made = tensors(["F32", "BF16", "U8"])
    for name, chosen in (("one", made), ("two", {key: tensor + 1 for key, tensor in made.items()})):
        fill(tmp_path / name, chosen, plan(made))
    one, two = ((tmp_path / name).read_bytes() for name in ("one", "two"))
    assert one != two
    known = Directories()
    first, second = (read_headers(tmp_path / name, known=known) for name in ("one", "two"))
    assert first.content == second.content
    assert [record.size for record in second.directory.records.values()] == [
        record.size for record in read_headers(tmp_path / "two").directory.records.values()
    ]
    checksums = {name: zlib.crc32(raw(made[name[2]])) for name in plan(made)}
    Allocator(ARGS, 7).seal(tmp_path / "one", plan(made), ["model"], checksums)
    assert (tmp_path / "one").read_bytes() == one


def test_allocator_lays_out_each_kind_of_file_anew(tmp_path):
    allocator = Allocator(ARGS, 7)
    one, two = tensors(["F32", "BF16"]), tensors(["F32", "F16"])
    kinds = {
        "one": (plan(one), ["model"]),
        "again": ({(Rank(5, 5, 5), *name[1:]): what for name, what in plan(one).items()}, ["model"]),
        "two": (plan(two), ["model"]),
        "other_keys": ({(rank, chunk, f"{key}s"): what for (rank, chunk, key), what in plan(one).items()}, ["model"]),
        "more_chunks": (plan(one), ["model", "model1"]),
        "other_chunk": (plan(one, "model1"), ["model", "model1"]),
        "other_order": (dict(reversed(plan(one).items())), ["model"]),
    }
    for name, (wanted, chunks) in kinds.items():
        offsets = allocator.allocate(tmp_path / name, wanted, chunks)
        assert list(offsets) == list(wanted)
        assert offsets == Allocator(ARGS, 7).allocate(tmp_path / f"{name}_alone", wanted, chunks)
        assert allocator.offsets(tmp_path / name, wanted, chunks) == offsets
        assert (tmp_path / name).read_bytes() == (tmp_path / f"{name}_alone").read_bytes()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "again").read_bytes()
    assert len({(tmp_path / name).read_bytes() for name in kinds}) == len(kinds) - 1


def test_space_for_tensors_is_not_written(tmp_path):
    path = tmp_path / "x.pt"
    wanted = {(RANK, "model", "large"): ("BF16", (1 << 16, 1 << 15))}  # 4 GiB
    (offset,) = Allocator(ARGS, 7).allocate(path, wanted, ["model"]).values()
    assert path.stat().st_size > 1 << 32
    assert path.stat().st_blocks * 512 < 1 << 20
    assert Allocator(ARGS, 7).offsets(path, wanted, ["model"]) == dict.fromkeys(wanted, offset)


@pytest.mark.parametrize(
    "sizes",
    [(10, 5 << 30, 20, 0, 30), ((1 << 32) - 1, 1), ((1 << 32) - 2, 1), (1 << 32, 1 << 32, 1), ((1 << 32) - 960, 0, 1)],
)
def test_records_at_and_beyond_4_gib_are_laid_out_as_torch_does(sizes, tmp_path):
    path = tmp_path / "archive.pt"  # torch names records after the file
    with torch.serialization.skip_data():
        torch.save(
            {
                str(number): unbacked(size) if size else torch.empty(0, dtype=torch.uint8)
                for number, size in enumerate(sizes)
            },
            path,
        )
    state = {str(number): EmptyTensor("U8", (size,), number) for number, size in enumerate(sizes)}
    skeleton = build_skeleton(pickled(state), sizes)
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for at, (offset, piece) in enumerate(skeleton.pieces):
            file.seek(offset)
            there = file.read(len(piece))
            if at == len(skeleton.pieces) - 1:
                own = archive.getinfo("archive/.data/serialization_id").header_offset - offset
                assert piece[:own] == there[:own]
            else:
                assert piece == there
    ours = tmp_path / "ours.pt"
    write_skeleton(ours, skeleton)
    theirs, found = load(path), load(ours)
    assert {name: tensor.offset for name, tensor in found.items()} == {name: t.offset for name, t in theirs.items()}
    assert [tensor.offset for tensor in found.values()] == list(skeleton.starts)
    with zipfile.ZipFile(ours) as archive:
        assert [entry.file_size for entry in archive.infolist() if "/data/" in entry.filename] == list(sizes)
