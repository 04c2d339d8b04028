"""The records of output files, and the journal that writes them."""

import errno
import os
import threading

import pytest

from mscvt.output.journal import Journal
from mscvt.output.record import open_record, parse, whole_size


@pytest.fixture
def records(tmp_path):
    opened = [open_record(tmp_path / name) for name in ("a", "b")]
    yield opened
    for record in opened:
        record.close()


def noted(tmp_path):
    return [dict(parse((tmp_path / name).read_bytes()).tensors) for name in ("a", "b")]


@pytest.fixture
def synced(monkeypatch):
    """What was synced, in order."""
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    return calls


def test_tensors_are_noted_in_the_records_of_their_files_only(records, tmp_path, synced):
    journal = Journal(records, [101, 102], seconds=0.0)
    journal.add([(0, 3, None), (1, 250, 0x0A1B2C3D), (0, 1, None)])
    journal.add([(1, 0, 0)])
    assert noted(tmp_path) == [{3: None, 1: None}, {250: 0x0A1B2C3D, 0: 0}]
    assert synced.index(101) == 0  # before anything is noted
    assert 102 in synced[:2]


def test_a_file_that_nothing_is_noted_for_is_not_synced(records, synced):
    Journal(records, [101, 102], seconds=0.0).add([(1, 0, None)])
    assert synced[0] == 102
    assert 101 not in synced


def test_tensors_are_collected_until_they_are_due(records, tmp_path, synced):
    journal = Journal(records, [101, 102], seconds=3600.0)
    journal.add([(0, 3, None)])
    assert noted(tmp_path) == [{}, {}]
    assert synced == []
    journal.flush()
    assert noted(tmp_path) == [{3: None}, {}]


def test_records_of_files_that_are_about_to_be_whole_are_left_to_who_notes_that(records, tmp_path, synced):
    journal = Journal(records, [101, 102], seconds=3600.0)
    journal.add([(0, 3, None), (1, 4, 5)])
    journal.flush(is_last=True)
    assert synced == [101, 102]
    assert noted(tmp_path) == [{3: None}, {4: 5}]


def test_nothing_is_noted_after_a_sync_has_failed(records, tmp_path, monkeypatch):
    journal = Journal(records, [101, 102], seconds=0.0)

    def fails(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            journal.add([(0, 1, None)])
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the system reports a loss only once
    journal.add([(0, 2, None), (1, 2, None)])
    journal.flush()
    assert noted(tmp_path) == [{}, {}]


def test_a_thread_that_waits_for_the_disk_when_the_journal_is_stopped_notes_nothing(records, tmp_path, monkeypatch):
    waiting, go_on = threading.Event(), threading.Event()

    def slow(descriptor):
        waiting.set()
        go_on.wait(10)

    monkeypatch.setattr(os, "fsync", slow)
    journal = Journal(records, [101, 102], seconds=0.0)
    thread = threading.Thread(target=journal.add, args=([(0, 1, None), (1, 1, None)],))
    thread.start()
    assert waiting.wait(10)
    journal.stop()
    go_on.set()
    thread.join()
    assert noted(tmp_path) == [{}, {}]


@pytest.mark.parametrize(
    ("text", "tensors", "size"),
    [
        (b"", {}, None),
        (b"7\n8 0a1b2c3d\n", {7: None, 8: 0x0A1B2C3D}, None),
        (b"7\nwhole 66\n", {7: None}, 66),
        (b"7\n8", {7: None}, None),
        (b"7\n8 0a1b2c3", {7: None}, None),
        (b"7\n8 0a1b2c3\n9\n", {7: None}, None),
        (b"7\nwhole 6", {7: None}, None),
        (b"\0\0\0\n7\n", {}, None),
        (b"7\n\0\0\0\0", {7: None}, None),
        (b"\xff7\n", {}, None),
        (b"-1\n7\n", {}, None),
        (b" 7\n", {}, None),
    ],
)
def test_a_record_is_believed_up_to_what_makes_no_sense(text, tensors, size, tmp_path):
    (tmp_path / "a").write_bytes(text)
    noted = parse(text)
    assert (dict(noted.tensors), noted.size, whole_size(tmp_path / "a")) == (tensors, size, size)
    record = open_record(tmp_path / "a")
    record.add({5: None})
    record.close()
    assert dict(parse((tmp_path / "a").read_bytes()).tensors) == {**tensors, **({} if size else {5: None})}


def test_a_record_is_locked_while_it_is_open(tmp_path):
    first = open_record(tmp_path / "a")
    assert open_record(tmp_path / "a") is None
    first.close()
    open_record(tmp_path / "a").close()


def test_a_record_that_is_cleared_knows_nothing(tmp_path):
    record = open_record(tmp_path / "a")
    record.add({5: None})
    record.finish(66)
    assert whole_size(tmp_path / "a") == 66
    record.clear()
    assert record.tensors == {}
    assert (tmp_path / "a").read_bytes() == b""
    record.close()


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    write = os.write
    record = open_record(tmp_path / "a")
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    record.add({123456: 0x0A1B2C3D, 7: None})
    record.close()
    assert (tmp_path / "a").read_bytes() == b"123456 0a1b2c3d\n7\n"
