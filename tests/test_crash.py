"""What a killed process and a full disk leave behind, and that the same command goes on from it."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from mscvt.errors import MscvtError
from small_conversions import DIRECTIONS, convert, hidden, journalled, prepare, tree
from small_disks import MOUNT, small_disks

WORKER = Path(__file__).with_name("crash_worker.py")


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
def test_a_size_limit_is_a_full_disk_and_the_same_command_completes_without_it(seen):
    limit = seen["limit"]
    assert "the disk is full" in limit["error"]
    assert limit["error"].endswith("Free some space.")  # files are allocated first, so nothing was kept to go on with
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
