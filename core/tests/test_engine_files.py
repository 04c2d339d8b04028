"""Writing blocks: to the places of all targets, whatever their order, with the checksum of the whole."""

import itertools
import os
import random
import zlib

import numpy as np
import pytest

from mscvt.engine.blocks import Block, blocks_of
from mscvt.engine.sinks import FileSink, Place
from mscvt.plan.contents import Content, Unit

DATA = np.frombuffer(random.Random(3).randbytes(1000), np.uint8)
CONTENT = Content((0, 1), "BF16", (500,), (), ())
PLACES = {0: Place(0, 10, 7), 1: Place(1, 0, 3), 2: Place(1, 5, 4)}


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    descriptors = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
    yield descriptors, paths
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("limit", [2, 70, 600, 1000])
@pytest.mark.parametrize("again", [0, 5])
def test_blocks_in_any_order_and_any_of_them_again_make_the_whole(limit, again, files):
    sink, draw = FileSink(PLACES, *files, checksums=True), random.Random(limit)
    blocks = blocks_of(CONTENT, limit)
    for block in draw.sample(blocks, len(blocks)) + draw.choices(blocks, k=again):
        data = DATA[2 * block.start : 2 * (block.start + block.numel)]
        cuts = sorted(draw.choices(range(len(data) + 1), k=2))
        assert sink.put(block, np.split(data, cuts)) == 2 * len(data)
    assert [path.read_bytes() for path in files[1]] == [bytes(10) + DATA.tobytes(), DATA.tobytes()]
    empty = Content((2,), "BF16", (0,), (), ())
    checksum = zlib.crc32(DATA)
    assert sink.finished([Unit(0, (CONTENT, empty))]) == [(0, 7, checksum), (1, 3, checksum), (1, 4, 0)]


def test_without_checksums_none_is_told(files):
    sink = FileSink(PLACES, *files, checksums=False)
    sink.put(Block(CONTENT, 0, 500), [DATA])
    assert sink.finished([Unit(0, (CONTENT,))]) == [(0, 7, None), (1, 3, None)]


def test_what_the_system_takes_in_parts_is_written_to_its_end(files, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, position: pwrite(file, data[:37], position))
    FileSink(PLACES, *files, checksums=True).put(Block(CONTENT, 0, 500), [DATA])
    assert files[1][1].read_bytes() == DATA.tobytes()


def test_an_error_names_the_file_that_could_not_be_written(files, monkeypatch):
    pwrite, calls = os.pwrite, itertools.count()

    def full(*args):
        if next(calls):
            raise OSError(28, "No space left on device")
        return pwrite(*args)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space") as caught:
        FileSink(PLACES, *files, checksums=True).put(Block(CONTENT, 0, 500), [DATA])
    assert caught.value.filename == str(files[1][1])
