"""CRC-32 of every tensor, computed while it is written, for formats that want it."""

import errno
import os
import zipfile
import zlib
from dataclasses import replace

import pytest

import mscvt.engine.sinks
from mscvt.errors import MscvtError
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.tensors.info import ITEM_SIZES
from small_conversions import DIRECTIONS, prepare, tree

pytestmark = pytest.mark.usefixtures("no_sync")


def in_the_file(conversion, path, file):
    """The CRC-32 of each tensor as zlib computes it from what lies there."""
    raw, found = path.read_bytes(), {}
    for name, offset in conversion.offsets(path, file).items():
        dtype, shape = file.tensors[name]
        nbytes = ITEM_SIZES[dtype]
        for size in shape:
            nbytes *= size
        found[name] = zlib.crc32(raw[offset : offset + nbytes])
    return found


def sealed(conversion, target, **settings):
    """Convert with checksums; returns those that each file was sealed with."""
    seals = {}

    def seal(path, file, checksums):
        assert path.read_bytes()  # it is there, with all its bytes
        assert checksums == in_the_file(conversion, path, file)
        assert file.path not in seals
        seals[file.path] = dict(checksums)
        if conversion.seal is not None:
            conversion.seal(path, file, checksums)

    run_conversion(replace(conversion, seal=seal), target, Settings(**{"max_memory": 1 << 17, **settings}))
    return seals


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("workers", [1, 3])
def test_every_file_is_sealed_once_with_the_checksums_of_its_tensors(direction, workers, sources, tmp_path):
    conversion = prepare(direction, sources)
    seals = sealed(conversion, tmp_path / "out", workers=workers)
    assert seals.keys() == {file.path for file in conversion.plan.files}
    assert all(len(seals[file.path]) == len(file.tensors) for file in conversion.plan.files)
    run_conversion(conversion, tmp_path / "plain", Settings())
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_checksums_of_tensors_that_an_earlier_run_wrote_are_kept(direction, sources, tmp_path, monkeypatch):
    conversion, put, count = prepare(direction, sources), mscvt.engine.sinks.FileSink.put, []

    def stops(self, block, data):
        count.append(block)
        if len(count) > 40:
            raise OSError(errno.EIO, "broken off")
        return put(self, block, data)

    with monkeypatch.context() as patched:
        patched.setattr(mscvt.engine.sinks.FileSink, "put", stops)
        with pytest.raises(MscvtError, match="broken off"):
            sealed(conversion, tmp_path / "out", workers=1)
    seals = sealed(conversion, tmp_path / "out", resume=True)
    assert seals.keys() == {file.path for file in conversion.plan.files}


def test_tensors_that_were_noted_without_a_checksum_are_written_again_where_one_is_wanted(
    sources, tmp_path, monkeypatch
):
    conversion, put, count = prepare("hf2mg", sources), mscvt.engine.sinks.FileSink.put, []

    def stops(self, block, data):
        count.append(block)
        if len(count) > 40:
            raise OSError(errno.EIO, "broken off")
        return put(self, block, data)

    with monkeypatch.context() as patched:
        patched.setattr(mscvt.engine.sinks.FileSink, "put", stops)
        with pytest.raises(MscvtError, match="broken off"):
            run_conversion(replace(conversion, seal=None), tmp_path / "out", Settings(workers=1))
    assert len(sealed(conversion, tmp_path / "out")) == len(conversion.plan.files)


def test_a_broken_output_disk_is_an_error_with_the_name_of_the_file(sources, tmp_path, monkeypatch):
    def broken(descriptor, data, offset):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(MscvtError, match=r"out\.mscvt/data/iter_0000001/.*\.pt: Input/output error"):
        run_conversion(prepare("hf2mg", sources), tmp_path / "out", Settings())


def test_shards_are_zip_files_whose_checksums_are_right(sources):
    for path in sorted(sources.mg.rglob("*.pt")):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
