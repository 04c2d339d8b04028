"""What a power failure leaves behind, torn records and lost files, and that the same command goes on from it."""

import errno
import os
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

import mscvt.engine.sinks
from mscvt.errors import MscvtError
from small_conversions import DIRECTIONS, PARTS, convert, hidden, journalled, prepare, tree


def break_off(monkeypatch, sources, target, *, after, direction="hf2mg"):
    """Run until so many blocks are written, and no further."""
    put, count = mscvt.engine.sinks.FileSink.put, []

    def stops(self, block, data):
        count.append(block)
        if len(count) > after:
            raise OSError(errno.EIO, "as if the process were killed")
        return put(self, block, data)

    with monkeypatch.context() as patched:
        patched.setattr(mscvt.engine.sinks.FileSink, "put", stops)
        with pytest.raises(MscvtError, match="as if the process were killed"):
            convert(direction, sources, target, workers=1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_unit_is_noted_only_after_its_bytes_were_synced(direction, sources, tmp_path, monkeypatch):
    target, dirty, noted = tmp_path / "out", set(), []
    pwrite, data = os.pwrite, hidden(target) / "data"

    def writes(descriptor, memory, offset):
        dirty.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        return pwrite(descriptor, memory, offset)

    def syncs(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if "/parts/" in path:
            noted.append(data / unquote(Path(path).name))
            assert str(noted[-1]) not in dirty
        dirty.discard(path)

    monkeypatch.setattr(os, "pwrite", writes)
    monkeypatch.setattr(os, "fsync", syncs)
    convert(direction, sources, target, workers=1)
    assert len(noted) > 10
    assert all((target / path.relative_to(data)).is_file() for path in noted)


def test_names_of_files_are_synced_before_the_journal_begins(sources, tmp_path, monkeypatch):
    synced, target = [], tmp_path / "out"

    def syncs(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", syncs)
    convert("hf2mg", sources, target, sync_seconds=60.0)
    root = hidden(target)
    first = next(i for i, path in enumerate(synced) if "/parts/" in path)
    rank = root / "data" / "iter_0000001" / "mp_rank_00_000_000"
    for path in (rank, rank.parent, root / "data", root, tmp_path, rank / "model_optim_rng.pt.new"):
        assert str(path) in synced[:first], path
    assert synced[-1] == str(tmp_path)  # the last rename
    assert str(root / "data" / "latest_checkpointed_iteration.txt") in synced


def records_of(target):
    """Records that name some tensors, by their file."""
    found = {unquote(path.name): path for path in sorted((hidden(target) / "parts").iterdir())}
    return {file: path for file, path in found.items() if path.stat().st_size}


@pytest.mark.parametrize("tail", [b"1", b"\0\0\0", b"\xff7"])
def test_a_torn_last_line_of_a_record_is_dropped(tail, sources, wholes, tmp_path, monkeypatch, no_sync):
    target = tmp_path / "out"
    break_off(monkeypatch, sources, target, after=20)
    before = journalled(target)
    for record in records_of(target).values():
        record.write_bytes(record.read_bytes() + tail)
    assert convert("hf2mg", sources, target).resumed_tensors == before > 0
    assert tree(target) == wholes["hf2mg"]


def test_a_line_written_after_a_torn_one_does_not_continue_it(sources, wholes, tmp_path, monkeypatch, no_sync):
    target = tmp_path / "out"
    break_off(monkeypatch, sources, target, after=20)
    before = {record: record.read_bytes() for record in records_of(target).values()}
    for record, text in before.items():
        record.write_bytes(text + b"1")
    break_off(monkeypatch, sources, target, after=10)
    count = 0
    for record in records_of(target).values():
        assert record.read_bytes().startswith(before.get(record, b""))
        noted = [line.split()[0] for line in record.read_bytes().splitlines()]
        assert len(noted) == len(set(noted))
        count += len(noted)
    assert count == journalled(target)
    assert convert("hf2mg", sources, target).resumed_tensors == count
    assert tree(target) == wholes["hf2mg"]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("loss", ["missing", "empty", "zeros"])
def test_a_lost_file_is_made_again_and_work_on_it_not_believed(
    direction, loss, sources, wholes, tmp_path, monkeypatch, no_sync
):
    target = tmp_path / "out"
    break_off(monkeypatch, sources, target, after=60, direction=direction)
    before = journalled(target)
    file, record = next(iter(records_of(target).items()))
    of_the_lost = len(record.read_bytes().splitlines())
    lost = hidden(target) / "data" / file
    size = lost.stat().st_size
    lost.unlink()
    if loss != "missing":
        lost.write_bytes(b"" if loss == "empty" else bytes(size))
    assert convert(direction, sources, target).resumed_tensors == before - of_the_lost
    assert of_the_lost > 0
    assert tree(target) == wholes[direction]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("loss", ["missing", "shorter"])
def test_a_whole_file_that_was_lost_is_made_again(direction, loss, sources, wholes, tmp_path, no_sync):
    target = tmp_path / "out"
    convert(direction, sources, target, only=PARTS[direction][1])
    (file,) = list(records_of(target))[:1]
    lost = hidden(target) / "data" / file
    if loss == "missing":
        lost.unlink()
    else:
        os.truncate(lost, lost.stat().st_size - 1)
    result = convert(direction, sources, target)
    assert result.is_complete
    assert tree(target) == wholes[direction]


def test_a_record_whose_beginning_was_lost_is_not_believed(sources, wholes, tmp_path, monkeypatch, no_sync):
    target = tmp_path / "out"
    break_off(monkeypatch, sources, target, after=20)
    for record in records_of(target).values():
        record.write_bytes(bytes(50) + b"\n" + b"".join(b"%d\n" % number for number in range(100)))
    assert convert("hf2mg", sources, target).resumed_tensors == 0
    assert tree(target) == wholes["hf2mg"]


def test_space_that_unfinished_work_has_already_is_not_asked_for_again(sources, tmp_path, monkeypatch, no_sync):
    target = tmp_path / "out"
    break_off(monkeypatch, sources, target, after=40)
    there = sum(path.stat().st_blocks * 512 for path in hidden(target).joinpath("data").rglob("*.pt"))
    missing = prepare("hf2mg", sources).plan.nbytes - there
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=missing - 1))
    with pytest.raises(MscvtError, match=f"needs {missing:,} bytes more"):
        convert("hf2mg", sources, target)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=missing))
    assert convert("hf2mg", sources, target).resumed_tensors > 0
