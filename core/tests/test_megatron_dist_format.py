"""Folders of torch.distributed.checkpoint: read as torch wrote them, and written so that torch reads them."""

import io
import zipfile

import pytest
import torch
import torch.distributed.checkpoint as dcp
from dist_checkpoints import pieces, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from mscvt.errors import MscvtError
from mscvt.formats.megatron_dist.items import ItemReader
from mscvt.formats.megatron_dist.reader import GlobalSource
from mscvt.formats.megatron_dist.writer import DistAllocator
from mscvt.formats.torch_zip.checksums import crc32
from mscvt.plan.contents import OutputFile
from mscvt.tensors.computing import values_of
from mscvt.tensors.slots import Slot

GENERATOR = torch.Generator().manual_seed(3)
WHOLE = {
    "a": torch.randn(3, 10, 6, generator=GENERATOR),
    "b": torch.randn(7, generator=GENERATOR).to(torch.bfloat16),
    "c": torch.randn(4, 5, generator=GENERATOR).to(torch.float16),
}
CUTS = {"a": [[1, 2], [4], [2, 5]], "b": [[3]], "c": [[], []]}


def everything(name):
    return True


def read(source, name):
    info = source.tensors[name]
    strides = torch.empty(info.shape).stride()
    return values_of(source.tensor(name), 0, info.shape, strides)


def test_chunks_of_any_division_are_one_tensor_again(tmp_path):
    chunks = {name: list(pieces(whole, CUTS[name])) for name, whole in WHOLE.items()}
    source = GlobalSource(write_folder(tmp_path, chunks, {"rng": [1, 2]}, files=3), everything)
    assert source.tensors.keys() == WHOLE.keys()
    for name, whole in WHOLE.items():
        assert source.tensors[name].shape == whole.shape
        assert torch.equal(read(source, name), whole)
    assert source.object("rng") == [1, 2]


def test_checkpoint_that_torch_saved_is_read(tmp_path):
    planner = DefaultSavePlanner(flatten_state_dict=False)
    dcp.save({**WHOLE, "x._extra_state": [None]}, checkpoint_id=tmp_path, planner=planner, no_dist=True)
    source = GlobalSource(tmp_path, everything)
    for name, whole in WHOLE.items():
        assert torch.equal(read(source, name), whole)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(data=st.data())
def test_any_region_of_chunks_is_that_of_the_whole(data, tmp_path_factory):
    whole = WHOLE["a"]
    cuts = [
        sorted(data.draw(st.sets(st.integers(1, size - 1), max_size=3))) if size > 1 else [] for size in whole.shape
    ]
    folder = write_folder(tmp_path_factory.mktemp("dist"), {"a": list(pieces(whole, cuts))})
    source = GlobalSource(folder, everything)
    box = [sorted((data.draw(st.integers(0, size)), data.draw(st.integers(0, size)))) for size in whole.shape]
    step = data.draw(st.integers(1, 3))
    wanted = whole[tuple(slice(*ends) for ends in box)][:, ::step]
    offset = wanted.storage_offset()
    order = data.draw(st.permutations(range(3)))
    wanted = wanted.permute(order)
    if wanted.numel():
        assert torch.equal(values_of(source.tensor("a"), offset, tuple(wanted.shape), wanted.stride()), wanted)


def test_region_inside_of_one_chunk_is_a_view_of_the_file(tmp_path):
    source = GlobalSource(write_folder(tmp_path, {"a": list(pieces(WHOLE["a"], [[1, 2], [], []]))}), everything)
    first = values_of(source.tensor("a"), 60, (10, 6), (6, 1))
    again = values_of(source.tensor("a"), 66, (2, 6), (6, 1))
    assert torch.equal(first, WHOLE["a"][1])
    assert again.data_ptr() == first[1].data_ptr()


def lose_a_chunk(metadata):
    metadata.state_dict_metadata["a"].chunks.pop()


def repeat_a_chunk(metadata):
    chunks = metadata.state_dict_metadata["a"].chunks
    chunks[0] = chunks[1]


def make_a_chunk_larger(metadata):
    metadata.state_dict_metadata["a"].chunks[0].sizes = torch.Size((1, 5, 6))


def move_a_chunk(metadata):
    metadata.state_dict_metadata["a"].chunks[0].offsets = torch.Size((0, 5, 0))


def lose_a_place(metadata):
    del metadata.storage_data[next(iter(metadata.storage_data))]


def leave_the_folder(metadata):
    next(iter(metadata.storage_data.values())).relative_path = "../other.distcp"


def go_beyond_the_end(metadata):
    next(iter(metadata.storage_data.values())).offset = 1 << 40


def swap_two_items(metadata):
    first, _, second = list(metadata.storage_data.values())[:3]
    first.offset, second.offset = second.offset, first.offset
    first.length, second.length = second.length, first.length


def compress(metadata):
    next(iter(metadata.storage_data.values())).transform_descriptors = ["zstd"]


def take_another_dtype(metadata):
    metadata.state_dict_metadata["a"].properties.dtype = torch.int32


def take_a_foreign_dtype(metadata):
    metadata.state_dict_metadata["a"].properties.dtype = torch.complex64


WRONG = {
    lose_a_chunk: "don't cover it",
    repeat_a_chunk: "don't cover it|in more than one",
    make_a_chunk_larger: "in more than one",
    move_a_chunk: r"does not say where the chunk at \[0, 5, 0\]",
    lose_a_place: "does not say where",
    leave_the_folder: "is not a file name inside",
    go_beyond_the_end: "speaks of byte",
    swap_two_items: r"\.metadata says",
    compress: "stored transformed",
    take_another_dtype: r"\.metadata says",
    take_a_foreign_dtype: "of dtype torch.complex64",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_metadata_that_contradicts_itself_or_the_files_is_refused(change, tmp_path):
    chunks = {"a": list(pieces(WHOLE["a"], [[1], [4], []]))}
    write_folder(tmp_path, chunks, change=change)
    with pytest.raises(MscvtError, match=WRONG[change]):
        read(GlobalSource(tmp_path, everything), "a")


@pytest.mark.parametrize("value", [WHOLE["a"].transpose(0, 1), {"a": 1}, [None], WHOLE["a"][:2]], ids=str)
def test_item_that_holds_something_else_is_refused(value, tmp_path):
    write_folder(tmp_path, {"a": [((0, 0, 0), WHOLE["a"])]})
    other = write_folder(tmp_path / "other", {}, {"a": value}, files=1)
    size = (other / "__0_0.distcp").stat().st_size
    with (tmp_path / "__0_0.distcp").open("wb") as file:
        file.write((other / "__0_0.distcp").read_bytes())

    def change(metadata):
        next(iter(metadata.storage_data.values())).length = size

    write_folder(tmp_path / "right", {"a": [((0, 0, 0), WHOLE["a"])]}, change=change)
    (tmp_path / ".metadata").write_bytes((tmp_path / "right" / ".metadata").read_bytes())
    with pytest.raises(MscvtError, match=r"__0_0\.distcp: the item at byte 0"):
        read(GlobalSource(tmp_path, everything), "a")


def test_item_is_not_trusted_since_its_neighbour_was_right(tmp_path):
    """Each byte of the second of two items is changed: it is read, or refused, as if there were no other one."""
    parts = list(pieces(torch.randn(2, 5, generator=GENERATOR), [[1], []]))
    folder = write_folder(tmp_path, {"a": parts}, files=1)
    first, second = [place for _, place in GlobalSource(folder, everything).chunks("a")]
    path = folder / "__0_0.distcp"
    content = path.read_bytes()
    outcomes = set()
    for at in range(second.offset, second.offset + second.length):
        path.unlink()  # whoever writes to a file that is being read waits for its reader
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        found = []
        for before in ([], [first]):
            reader = ItemReader([path])
            for place in before:
                reader.tensor(0, place, "F32", (1, 5))
            try:
                found.append(reader.tensor(0, second, "F32", (1, 5)).region(0, (5,), (1,)).tobytes())
            except MscvtError as error:
                found.append(str(error))
            reader.close()
        assert found[0] == found[1]
        outcomes.add(type(found[0]))
    assert outcomes == {bytes, str}


SLOTS = {
    "embedding": Slot("embedding.weight"),
    **{f"layer{i}": Slot("layers.weight", (i,), (2,), others=("again.weight",)) for i in range(2)},
    **{f"expert{i}{e}": Slot("experts.weight", (i, e), (2, 3)) for i in range(2) for e in range(3)},
}
TENSORS = {
    name: torch.randn(*((9, 4) if name == "embedding" else (3, 5)), generator=GENERATOR).to(torch.bfloat16)
    for name in SLOTS
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint in two files: (folder, files)."""
    folder = tmp_path_factory.mktemp("written")
    names = list(TENSORS)
    files = [
        OutputFile(f"release/__0_{number}.distcp", {name: ("BF16", tuple(TENSORS[name].shape)) for name in part})
        for number, part in enumerate((names[:4], names[4:]))
    ]
    allocator = DistAllocator(SLOTS.__getitem__)
    (folder / "release").mkdir()
    for file in files:
        path = folder / file.path
        offsets = allocator.allocate(path, file)
        assert allocator.offsets(path, file) == offsets
        with path.open("r+b") as stream:
            for name, offset in offsets.items():
                stream.seek(offset)
                stream.write(TENSORS[name].view(torch.uint8).numpy().tobytes())
        allocator.seal(path, file, {n: crc32(TENSORS[n].view(torch.uint8).numpy()) for n in file.tensors})
        assert allocator.offsets(path, file) == offsets
    allocator.write_metadata(folder / "release", files, ["x._extra_state/shard_0_1", "y._extra_state/shard_0_1"])
    return folder / "release", files


def stacked():
    return {
        "embedding.weight": TENSORS["embedding"],
        "layers.weight": torch.stack([TENSORS[f"layer{i}"] for i in range(2)]),
        "again.weight": torch.stack([TENSORS[f"layer{i}"] for i in range(2)]),
        "experts.weight": torch.stack([torch.stack([TENSORS[f"expert{i}{e}"] for e in range(3)]) for i in range(2)]),
    }


def test_torch_loads_what_was_written(written):
    state = {name: torch.zeros_like(whole) for name, whole in stacked().items()}
    dcp.load(state, checkpoint_id=written[0], no_dist=True)
    for name, whole in stacked().items():
        assert torch.equal(state[name], whole)


def test_what_was_written_is_read_again(written):
    source = GlobalSource(written[0], everything)
    for name, whole in stacked().items():
        assert torch.equal(read(source, name), whole)
    assert source.object("y._extra_state/shard_0_1") == [None]


def test_checksums_of_items_are_valid(written):
    source = GlobalSource(written[0], everything)
    for name in source.tensors:
        for chunk in source.metadata.tensor(name).chunks:
            with (written[0] / chunk.place.file).open("rb") as stream:
                stream.seek(chunk.place.offset)
                with zipfile.ZipFile(io.BytesIO(stream.read(chunk.place.length))) as archive:
                    assert archive.testzip() is None


def test_file_that_was_changed_is_not_taken_for_allocated(written, tmp_path):
    folder, files = written
    allocator = DistAllocator(SLOTS.__getitem__)
    content = bytearray((folder.parent / files[0].path).read_bytes())
    path = tmp_path / "__0_0.distcp"
    path.write_bytes(content[:-1])
    with pytest.raises(MscvtError, match="has not the size"):
        allocator.offsets(path, files[0])
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(MscvtError, match="is not what was made here"):
        allocator.offsets(path, files[0])


@pytest.mark.parametrize(("gap", "at_once"), [(1 << 12, 1 << 20), (100, 1 << 20), (1 << 12, 1000), (0, 0)])
def test_file_is_laid_out_the_same_whatever_is_written_at_once(gap, at_once, written, tmp_path, monkeypatch):
    folder, files = written
    monkeypatch.setattr("mscvt.formats.megatron_dist.writer._GAP", gap)
    monkeypatch.setattr("mscvt.formats.megatron_dist.writer._AT_ONCE", at_once)
    allocator = DistAllocator(SLOTS.__getitem__)
    for number, file in enumerate(files):
        path = tmp_path / str(number)
        for name, offset in allocator.allocate(path, file).items():
            with path.open("r+b") as stream:
                stream.seek(offset)
                stream.write(TENSORS[name].view(torch.uint8).numpy().tobytes())
        allocator.seal(path, file, {n: crc32(TENSORS[n].view(torch.uint8).numpy()) for n in file.tensors})
        assert path.read_bytes() == (folder.parent / file.path).read_bytes()
