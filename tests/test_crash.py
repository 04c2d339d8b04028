"""What a killed process, a full disk and a power failure leave behind, and that the same command goes on from it."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

import mscvt.engine.sinks
from mscvt.errors import MscvtError
from small_conversions import DIRECTIONS, PARTS, convert, hidden, journalled, make_sources, prepare, tree
from small_disks import MOUNT, small_disks

WORKER = Path(__file__).with_name("crash_worker.py")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def wholes(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wholes")
    for direction in DIRECTIONS:
        convert(direction, sources, folder / direction, sync_seconds=60.0)
    return {direction: tree(folder / direction) for direction in DIRECTIONS}


@pytest.fixture
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@cache
def watch(direction):
    """What the worker saw; started once, whichever test asks first."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, WORKER, direction, folder],
            env={**os.environ, "PYTHONPATH": str(WORKER.parent)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=DIRECTIONS)
def seen(request):
    return watch(request.param)


@pytest.mark.xdist_group("crash")
def test_nothing_is_lost_by_kill_9_at_20_random_moments(seen):
    kills = seen["kills"]
    assert kills["kills"] >= 20
    assert kills["different"] == 0
    assert kills["left"] == []
    assert kills["resumed"] > 0  # otherwise nothing was resumed, only begun again
    assert kills["partial"] > 5  # otherwise the kills did not hit the writing


@pytest.mark.xdist_group("crash")
def test_a_size_limit_is_a_full_disk_and_the_same_command_goes_on(seen):
    limit = seen["limit"]
    assert "the disk is full" in limit["error"]
    assert "the same command goes on" in limit["error"]
    assert limit["there"] is False
    assert (limit["status"], limit["is_equal"]) == (0, True)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_in_the_middle_keeps_what_is_done(
    direction, code, sources, wholes, tmp_path, monkeypatch, no_sync
):
    target, pwrite, written = tmp_path / "out", os.pwrite, []

    def until_full(descriptor, data, offset):
        written.append(len(data))
        if sum(written) > 300_000:
            raise OSError(code, os.strerror(code))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", until_full)
    with pytest.raises(MscvtError, match="the disk is full") as caught:
        convert(direction, sources, target)
    assert "the same command goes on" in caught.value.hint
    assert not target.exists()
    before = journalled(target)
    assert before > 0
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert convert(direction, sources, target).resumed_tensors == before
    assert tree(target) == wholes[direction]


@pytest.mark.xdist_group("crash")
def test_parts_written_at_the_same_time_by_different_processes_complete_the_whole(seen):
    parts = seen["parts"]
    assert [status for status, _ in parts["ends"]] == [0] * len(parts["ends"])
    said = [said for _, said in parts["ends"]]
    assert said.count("True") == 1
    refused = ("another run is writing some of the same files", "exists and is not empty")
    assert {text for text in said if not any(words in text for words in refused)} == {"True", "False"}
    assert parts["is_equal"]
    assert parts["is_hidden_gone"]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", small_disks())
def test_a_small_file_system_is_refused_and_when_it_fills_up_the_same_command_goes_on(
    size, direction, sources, wholes, tmp_path, monkeypatch
):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run([*MOUNT, size, "tmpfs", disk], check=True)
    try:
        (disk / "other").write_bytes(bytes(400_000))
        with pytest.raises(MscvtError, match="bytes free"):
            convert(direction, sources, disk / "out")
        assert [path.name for path in disk.iterdir()] == ["other"]
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        for _ in range(2):
            with pytest.raises(MscvtError, match="the disk is full"):
                convert(direction, sources, disk / "out")
        assert not (disk / "out").exists()
        subprocess.run([*MOUNT, "remount,size=4m", disk], check=True)
        assert convert(direction, sources, disk / "out", resume=True).is_complete
        assert tree(disk / "out") == wholes[direction]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_full_disk_that_only_fsync_reports_is_not_believed_to_hold_the_bytes(
    direction, sources, wholes, tmp_path, monkeypatch
):
    target, calls = tmp_path / "out", []

    def broken(descriptor):
        calls.append(descriptor)
        if (hidden(target) / "parts").exists() and journalled(target) >= 5:
            monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the system says it once
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(MscvtError, match="the disk is full"):
        convert(direction, sources, target, workers=1)
    before = journalled(target)
    assert before >= 5
    assert convert(direction, sources, target).resumed_tensors == before
    assert tree(target) == wholes[direction]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_too_little_free_space_is_refused_before_the_start_with_nothing_left(direction, sources, tmp_path, monkeypatch):
    target = tmp_path / "out"
    nbytes = prepare(direction, sources).plan.nbytes
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=nbytes - 1))
    with pytest.raises(MscvtError, match=f"needs {nbytes:,} bytes more, the disk has {nbytes - 1:,} bytes free"):
        convert(direction, sources, target)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=nbytes))
    assert convert(direction, sources, target, sync_seconds=60.0).is_complete


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
    pwrite = os.pwrite

    def writes(descriptor, data, offset):
        dirty.add(descriptor)
        return pwrite(descriptor, data, offset)

    def syncs(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if "/parts/" in path:
            noted.append(set(dirty))
        dirty.discard(descriptor)

    monkeypatch.setattr(os, "pwrite", writes)
    monkeypatch.setattr(os, "fsync", syncs)
    convert(direction, sources, target, workers=1)
    assert len(noted) > 20
    assert not any(noted)


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
