"""A source that somebody writes to or cuts while it is mapped: an error with its name, and no dead process."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from mscvt.errors import MscvtError
from mscvt.formats.files import MappedFiles
from mscvt.formats.guard import Guard
from mscvt.tensors.info import TensorInfo

PAGES = 4096


@pytest.fixture(params=["leased", "without leases"])
def path(request, tmp_path, monkeypatch):
    if request.param != "leased":
        monkeypatch.setattr("mscvt.formats.guard._take_lease", lambda descriptor: False)
    path = tmp_path / "weights"
    path.write_bytes(bytes(2 * PAGES))
    return path


def info(count=2 * PAGES):
    return TensorInfo("U8", (count,), 0, 0)


def until_it_fails(attempt):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        attempt()


def test_a_file_that_is_left_alone_is_read(path):
    maps = MappedFiles([path])
    for _ in range(3):
        assert maps.tensor(info()).region(0, (2 * PAGES,), (1,)).sum() == 0


def test_a_file_that_is_cut_is_an_error_with_its_name(path):
    maps = MappedFiles([path])
    maps.tensor(info())
    cutting = threading.Thread(target=os.truncate, args=(path, PAGES))
    cutting.start()  # with a lease it waits for us
    with pytest.raises(MscvtError, match=f"{path}: another program is writing to it, or has cut it"):
        until_it_fails(partial(maps.tensor, info()))
    del maps
    cutting.join(10)
    assert path.stat().st_size == PAGES


def test_pages_stay_until_the_reader_has_seen_that_they_are_taken(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 2 * PAGES)
    guard = Guard(path)
    if not guard._is_leased:
        pytest.fail("the file system of the tests' temporary folder gives no leases")
    cutting = subprocess.Popen([sys.executable, "-c", f"import os; os.truncate({str(path)!r}, 0)"])
    with pytest.raises(MscvtError, match="another program is writing to it"):
        until_it_fails(guard.check)
    assert cutting.poll() is None
    assert path.stat().st_size == 2 * PAGES
    del guard
    assert cutting.wait(20) == 0
    assert path.stat().st_size == 0


def test_of_many_files_few_are_open_and_one_that_is_read_stays_guarded(tmp_path, monkeypatch):
    monkeypatch.setattr("mscvt.formats.files._MOST_MAPPED", 2)
    paths = [tmp_path / str(number) for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 2 * PAGES)
    maps, before = MappedFiles(paths), len(os.listdir("/proc/self/fd"))
    first = maps.tensor(TensorInfo("U8", (2 * PAGES,), 0, 0))
    for _ in range(2):
        for number in range(1, 6):
            found = maps.tensor(TensorInfo("U8", (2 * PAGES,), number, 0)).region(0, (2 * PAGES,), (1,))
            assert (found == number).all()
    del found
    assert len(os.listdir("/proc/self/fd")) == before + 3 * 2  # the first one, which is in use, and two
    cutting = subprocess.Popen([sys.executable, "-c", f"import os; os.truncate({str(paths[0])!r}, 0)"])
    time.sleep(0.5)
    assert cutting.poll() is None
    assert not first.region(0, (2 * PAGES,), (1,)).any()
    del first
    assert cutting.wait(20) == 0
    maps.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_open_for_writing_is_read_without_a_lease(tmp_path):
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.write(bytes(PAGES))
        file.flush()
        guard = Guard(path)
        guard.check()
        os.truncate(path, 10)
        with pytest.raises(MscvtError, match="has cut it"):
            guard.check()


def test_the_signal_of_a_broken_lease_is_one_that_does_no_harm(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(PAGES))
    guard = Guard(path)
    with pytest.raises(BlockingIOError):
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    assert fcntl.fcntl(guard._descriptor, fcntl.F_GETLEASE) == fcntl.F_UNLCK


def test_a_tensor_ends_where_its_bytes_end_though_the_file_goes_on(path):
    maps = MappedFiles([path])
    tensor = maps.tensor(TensorInfo("BF16", (10,), 0, 6))
    assert tensor.region(9, (1,), (1,)).tolist() == [0]
    for offset, extents, strides in ((10, (1,), (1,)), (0, (11,), (1,)), (0, (4,), (4,)), (-1, (1,), (1,))):
        with pytest.raises(ValueError, match=r"."):
            tensor.region(offset, extents, strides)
