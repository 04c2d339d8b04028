"""The journal by itself."""

import errno
import os

import pytest

from mscvt.output.journal import Journal, drop_journals, files_of

FILES = ("a/x.pt", "b/x.pt")


def test_units_are_found_again_by_the_same_files_only(tmp_path):
    journal = Journal(tmp_path, FILES)
    journal.begin([], seconds=0.0)
    for unit in (3, 1, 250):
        journal.add(unit)
    assert Journal(tmp_path, FILES).finished_units() == {1, 3, 250}
    assert Journal(tmp_path, FILES[:1]).finished_units() == set()


def test_units_are_collected_until_they_are_due(tmp_path):
    journal = Journal(tmp_path, FILES)
    journal.begin([], seconds=3600.0)
    journal.add(3)
    assert Journal(tmp_path, FILES).finished_units() == set()
    journal.flush()
    assert Journal(tmp_path, FILES).finished_units() == {3}


def test_nothing_is_noted_after_a_sync_has_failed(tmp_path, monkeypatch):
    journal = Journal(tmp_path, FILES)
    journal.begin([0], seconds=0.0)

    def fails(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            journal.add(1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the system reports a loss only once
    journal.add(2)
    journal.flush()
    assert Journal(tmp_path, FILES).finished_units() == set()


def test_only_journals_of_a_lost_file_are_dropped(tmp_path):
    for files in (FILES, FILES[:1], FILES[1:]):
        journal = Journal(tmp_path, files)
        journal.begin([], seconds=0.0)
        journal.add(7)
    drop_journals(tmp_path, ["a/x.pt"])
    assert [files_of(path) for path in tmp_path.iterdir()] == [["b/x.pt"]]


@pytest.mark.parametrize("first", [b"", b'["a/x.pt"', b"\0\0\0\n", b"7\n", b'{"a": 1}\n', b"\xff\n"])
def test_a_journal_that_does_not_say_its_files_is_worthless(first, tmp_path):
    journal = Journal(tmp_path, FILES)
    journal.path.write_bytes(first)
    assert files_of(journal.path) == []
    assert journal.finished_units() == set()
    journal.begin([], seconds=0.0)
    journal.add(5)
    assert Journal(tmp_path, FILES).finished_units() == {5}
