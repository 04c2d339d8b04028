"""Checksums put into shards once their tensors are written."""

import zlib

import pytest
from torch_shards import ARGS, fill, plan, tensors, write_shard

from mscvt.errors import MscvtError
from mscvt.formats.megatron_torch.writer import allocate
from mscvt.formats.torch_zip.reader import read_headers
from mscvt.formats.torch_zip.sealing import checksum_places, unknown_checksums, write_checksums


@pytest.fixture
def written(tmp_path):
    return write_shard(tmp_path)


def test_checksums_are_unknown_until_both_places_say_them(tmp_path):
    path, made = tmp_path / "x.pt", tensors(["F32", "BF16", "U8"])
    offsets = allocate(path, plan(made), ARGS, ["model"], 7)
    sizes = {offset: made[name[2]].nbytes for name, offset in offsets.items() if made[name[2]].nbytes}
    assert len(sizes) == 2
    assert unknown_checksums(path) == sizes
    first, second = sizes
    write_checksums(path, {first: 0})  # a checksum may be any number
    assert unknown_checksums(path) == {second: sizes[second]}
    write_checksums(path, {second: 0xFFFFFFFF})
    assert unknown_checksums(path) == {}


@pytest.mark.parametrize("place", ["trailer", "entry"])
@pytest.mark.parametrize("checksum", [0, 1, 0xDEADBEEF, 0xFFFFFFFF])
def test_checksum_that_was_half_written_is_unknown(place, checksum, tmp_path):
    path, made = tmp_path / "x.pt", tensors(["F32"])
    (offset,) = allocate(path, plan(made), ARGS, ["model"], 7).values()
    (places,) = checksum_places(path)
    before = path.read_bytes()
    write_checksums(path, {offset: checksum})
    after = path.read_bytes()
    half = bytearray(before)
    at = getattr(places, place)
    half[at : at + 4] = after[at : at + 4]
    path.write_bytes(half)
    assert unknown_checksums(path) == ({offset: places.size} if bytes(half) != after else {})
    write_checksums(path, {offset: checksum})
    assert path.read_bytes() == after


def test_checksums_written_again_change_nothing(written):
    path, _ = written
    before = path.read_bytes()
    write_checksums(
        path, {places.start: zlib.crc32(before[places.start :][: places.size]) for places in checksum_places(path)}
    )
    assert path.read_bytes() == before


def test_checksum_of_no_record_is_refused(written):
    path, _ = written
    before = path.read_bytes()
    start = checksum_places(path)[0].start
    with pytest.raises(MscvtError, match=rf"model_optim_rng\.pt: no record begins at byte {start + 1:,}"):
        write_checksums(path, {start: 1, start + 1: 1})
    assert path.read_bytes() == before


def test_checksums_are_no_part_of_what_makes_files_equal(tmp_path):
    made = tensors(["F32", "BF16"])
    for name, chosen in (("one", made), ("two", {key: tensor + 1 for key, tensor in made.items()})):
        fill(tmp_path / name, chosen, allocate(tmp_path / name, plan(made), ARGS, ["model"], 7))
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()
    assert read_headers(tmp_path / "one").digest == read_headers(tmp_path / "two").digest
