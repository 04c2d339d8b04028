"""A source that is another one than when the work began, or becomes another one while it is read."""

import os
import shutil
from hashlib import sha256

import pytest

import mscvt.engine.sinks
from mscvt.errors import MscvtError
from mscvt.output.identity import check_unchanged, comparable, differences, source_identity
from small_conversions import DIRECTIONS, convert, hidden, journalled, make_sources, tree

pytestmark = pytest.mark.usefixtures("no_sync")


def a_weight_file(direction, sources):
    pattern = "*.safetensors" if direction == "hf2mg" else "**/*.pt"
    return min(sources[DIRECTIONS.index(direction)].glob(pattern))


def in_the_middle(monkeypatch, what):
    """Do something when some blocks are written."""
    put, count = mscvt.engine.sinks.FileSink.put, []

    def puts(self, block, data):
        count.append(block)
        if len(count) == 20:
            what()
        return put(self, block, data)

    monkeypatch.setattr(mscvt.engine.sinks.FileSink, "put", puts)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("change", "names"),
    [("written", "mtime"), ("longer", "size, mtime"), ("replaced", "inode"), ("gone", "can't be read any more")],
)
def test_a_source_that_changes_while_it_is_read_leaves_no_result(direction, change, names, tmp_path, monkeypatch):
    sources = make_sources(tmp_path)
    changed, target = a_weight_file(direction, sources), tmp_path / "out"
    copy = tmp_path / "copy"
    shutil.copy2(changed, copy)
    status = changed.stat()
    # Whoever opens it for writing would be seen at once, where leases are.
    monkeypatch.setattr("mscvt.formats.guard.Guard.check", lambda self: None)

    def changes():
        if change == "written":
            changed.write_bytes(copy.read_bytes()[:-1] + b"\1")
        elif change == "longer":
            with changed.open("ab") as file:
                file.write(b"\0")
        elif change == "replaced":
            os.replace(copy, changed)
            os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
        else:
            changed.unlink()

    in_the_middle(monkeypatch, changes)
    monkeypatch.setattr("mscvt.formats.guard._take_lease", lambda descriptor: False)
    with pytest.raises(MscvtError) as caught:
        convert(direction, sources, target, workers=1)
    assert str(changed) in str(caught.value)
    assert names in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_source_that_somebody_opens_for_writing_is_noticed_at_once(direction, tmp_path, monkeypatch):
    sources = make_sources(tmp_path)
    changed = a_weight_file(direction, sources)

    def opens():
        with pytest.raises(BlockingIOError):
            os.open(changed, os.O_WRONLY | os.O_NONBLOCK)

    in_the_middle(monkeypatch, opens)
    with pytest.raises(MscvtError, match=f"{changed}: another program is writing to it"):
        convert(direction, sources, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_another_source_with_files_of_the_same_size_and_time_is_refused(direction, tmp_path, monkeypatch):
    sources = make_sources(tmp_path / "one")
    put, count = mscvt.engine.sinks.FileSink.put, []

    def stops(self, block, data):
        count.append(block)
        if len(count) > 20:
            raise OSError("broken off")
        return put(self, block, data)

    with monkeypatch.context() as patched:
        patched.setattr(mscvt.engine.sinks.FileSink, "put", stops)
        with pytest.raises(MscvtError, match="broken off"):
            convert(direction, sources, tmp_path / "out", workers=1)
    assert journalled(tmp_path / "out") > 0
    before = tree(hidden(tmp_path / "out"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # times are kept
    (tmp_path / "one").rename(tmp_path / "three")
    for other in ("two", "three"):
        moved = type(sources)(tmp_path / other / "hf", tmp_path / other / "mg")
        with pytest.raises(MscvtError, match="differs from this one in source") as caught:
            convert(direction, moved, tmp_path / "out")
        assert any(line.startswith("source, folder: ") for line in caught.value.faults)
        assert tree(hidden(tmp_path / "out")) == before


def test_an_identity_holds_what_tells_a_file_from_every_other(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"x" * (3 << 20))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    identity = source_identity(tmp_path / "link", [tmp_path / "link" / "a"])
    status = (tmp_path / "real" / "a").stat()
    assert identity["folder"] == str(tmp_path / "real")
    assert identity["files"]["a"] == {
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": 3 << 20,
        "mtime": status.st_mtime_ns,
        "head": sha256(b"x" * (64 << 10)).hexdigest(),
    }
    check_unchanged(identity)
    with (tmp_path / "real" / "a").open("r+b") as file:
        file.write(b"y")
    os.utime(tmp_path / "real" / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    again = source_identity(tmp_path / "link", [tmp_path / "link" / "a"])
    assert [line.split(":")[0] for line in differences(identity, again)] == ["files, a, head"]


def test_machines_that_number_a_shared_file_system_differently_go_on_with_each_others_work(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    identity = {"source": source_identity(tmp_path, [tmp_path / "a"]), "options": {"tp": 2}}
    elsewhere = {"source": source_identity(tmp_path, [tmp_path / "a"]), "options": {"tp": 2}}
    elsewhere["source"]["files"]["a"]["device"] += 1
    assert comparable(identity) == comparable(elsewhere)
    with pytest.raises(MscvtError, match="another device than before"):
        check_unchanged(elsewhere["source"])


def test_every_differing_value_is_said():
    there = {"options": {"tp": 2, "pp": 1, "noop": [8]}, "dtype": None}
    here = {"options": {"tp": 4, "pp": 1, "noop": [8, 9]}, "dtype": None, "more": 1}
    assert differences(there, here) == [
        "more: nothing there, 1 here",
        "options, noop: [8] there, [8, 9] here",
        "options, tp: 2 there, 4 here",
    ]
