"""Room on a disk that is really taken, and files that are whole or as they were."""

import ctypes
import errno
import os

import pytest

from mscvt.output.disk import reserve, write_whole

MEBIBYTE = 1 << 20


def sparse(path, size=4 * MEBIBYTE):
    path.write_bytes(b"header")
    os.truncate(path, size)
    return path


def test_space_is_taken_and_the_content_kept(tmp_path):
    path = sparse(tmp_path / "a")
    assert path.stat().st_blocks * 512 < MEBIBYTE
    assert reserve(path) is True
    assert path.stat().st_blocks * 512 >= 4 * MEBIBYTE
    assert path.read_bytes() == b"header" + bytes(4 * MEBIBYTE - 6)


def test_an_empty_file_needs_no_space(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    assert reserve(tmp_path / "a") is True


@pytest.fixture
def fails_with(monkeypatch):
    """Have the system call fail."""

    def arrange(code):
        class Library:
            def fallocate64(self, descriptor, mode, start, size):
                ctypes.set_errno(code)
                return -1

        monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: Library())

    return arrange


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_can_not_reserve_leaves_the_file_sparse(code, tmp_path, fails_with):
    path = sparse(tmp_path / "a")
    fails_with(code)
    assert reserve(path) is False
    assert path.stat().st_size == 4 * MEBIBYTE


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_is_full_or_broken_is_an_error_with_the_name_of_the_file(code, tmp_path, fails_with):
    path = sparse(tmp_path / "a")
    fails_with(code)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        reserve(path)
    assert (caught.value.errno, caught.value.filename) == (code, str(path))


def test_a_system_without_the_call_leaves_the_file_sparse(tmp_path, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: object())
    assert reserve(sparse(tmp_path / "a")) is False


def test_a_file_that_can_not_be_written_whole_stays_what_it_was(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "one")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
