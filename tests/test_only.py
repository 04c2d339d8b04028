"""`--only`: parts of one output, in any order and at the same time, and the result when all of them are there."""

import errno
import shutil

import pytest

import mscvt.engine.sinks
from mscvt.errors import MscvtError
from mscvt.jobs.comparison import check_equal_sources
from mscvt.plan.selection import divide_files, select_files
from small_conversions import DIRECTIONS, PARTS, convert, hidden, prepare, tree

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture(scope="module")
def wholes(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wholes")
    for direction in DIRECTIONS:
        convert(direction, sources, folder / direction, sync_seconds=60.0)
    return {direction: tree(folder / direction) for direction in DIRECTIONS}


def chosen(direction, sources, only):
    return [file.path for file in select_files(prepare(direction, sources).plan.files, only)]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("verify", [False, True])
def test_parts_write_only_their_files_and_the_last_completes(direction, turn, verify, sources, wholes, tmp_path):
    target, whole, parts = tmp_path / "out", wholes[direction], PARTS[direction][::turn]
    written = set()
    for only in parts:
        assert not target.exists()
        result = convert(direction, sources, target, only=only, verify=verify)
        written |= set(chosen(direction, sources, only))
        assert result.is_complete is (only == parts[-1])
        if not result.is_complete:
            assert tree(hidden(target) / "data") == {path: whole[path] for path in written}
    assert tree(target) == whole
    assert not hidden(target).exists()


def test_equal_parts_at_the_same_time_are_refused_and_others_are_not(sources, wholes, tmp_path, monkeypatch):
    target, put, said = tmp_path / "out", mscvt.engine.sinks.FileSink.put, []

    def meanwhile(self, block, data):
        if not said:
            said.append("")
            for only in ("pp=0", "ep=1", None):
                with pytest.raises(MscvtError, match="another run is writing") as caught:
                    convert("hf2mg", sources, target, only=only)
                said.append(caught.value.message)
            assert convert("hf2mg", sources, target, only="pp=1").is_complete is False
        return put(self, block, data)

    monkeypatch.setattr(mscvt.engine.sinks.FileSink, "put", meanwhile)
    assert convert("hf2mg", sources, target, only="pp=0", workers=1).is_complete
    assert all("some of the same files" in message for message in said[1:])
    assert len(said) == 4
    assert tree(target) == wholes["hf2mg"]


def broken_off(monkeypatch, direction, sources, target, only):
    put, count = mscvt.engine.sinks.FileSink.put, []

    def stops(self, block, data):
        count.append(block)
        if len(count) > 15:
            raise OSError(errno.EIO, "broken off")
        return put(self, block, data)

    with monkeypatch.context() as patched:
        patched.setattr(mscvt.engine.sinks.FileSink, "put", stops)
        with pytest.raises(MscvtError, match="broken off"):
            convert(direction, sources, target, only=only, workers=1)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_part_that_was_broken_off_goes_on_beside_others(direction, sources, wholes, tmp_path, monkeypatch):
    target, (first, second, *rest) = tmp_path / "out", PARTS[direction]
    broken_off(monkeypatch, direction, sources, target, first)
    assert convert(direction, sources, target, only=second).resumed_tensors == 0
    assert convert(direction, sources, target, only=first).resumed_tensors > 0
    for only in rest:
        convert(direction, sources, target, only=only)
    assert tree(target) == wholes[direction]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_whole_command_writes_only_what_parts_have_left(direction, sources, wholes, tmp_path, monkeypatch):
    target, (first, *_) = tmp_path / "out", PARTS[direction]
    part = convert(direction, sources, target, only=first)
    written = []

    def counts(self, block, data, put=mscvt.engine.sinks.FileSink.put):
        written.append(put(self, block, data))
        return written[-1]

    monkeypatch.setattr(mscvt.engine.sinks.FileSink, "put", counts)
    result = convert(direction, sources, target)
    assert result.is_complete
    assert (part.written, result.written) == (part.nbytes, result.nbytes - part.nbytes)
    assert sum(written) == result.written
    assert result.resumed_tensors > 0
    assert tree(target) == wholes[direction]


def test_a_run_says_which_files_are_still_missing(sources, tmp_path):
    target = tmp_path / "out"
    result = convert("hf2mg", sources, target, only="pp=0")
    assert (result.staging, result.target, result.is_complete) == (hidden(target), target, False)
    assert list(result.missing) == chosen("hf2mg", sources, "pp=1")
    again = convert("hf2mg", sources, target, only="pp=0")
    assert (again.written, again.missing, again.is_complete) == (0, result.missing, False)
    last = convert("hf2mg", sources, target, only="pp=1")
    assert (last.missing, last.is_complete, last.written) == ((), True, last.nbytes)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_progress_of_a_run_that_goes_on_ends_with_all_that_was_announced(direction, sources, tmp_path, monkeypatch):
    broken_off(monkeypatch, direction, sources, tmp_path / "out", None)
    announced, moved = [], []
    convert(
        direction,
        sources,
        tmp_path / "out",
        workers=1,
        started=lambda what, nbytes: announced.append((what, nbytes)),
        progress=moved.append,
    )
    assert dict(announced)["converting"] == sum(moved) == prepare(direction, sources).plan.nbytes


def test_the_whole_command_completes_parts_that_were_broken_off(sources, wholes, tmp_path, monkeypatch):
    target = tmp_path / "out"
    convert("hf2mg", sources, target, only="pp=1")
    broken_off(monkeypatch, "hf2mg", sources, target, "pp=0")
    assert convert("hf2mg", sources, target).is_complete
    assert tree(target) == wholes["hf2mg"]


def test_a_part_whose_file_was_lost_is_made_again_whoever_wrote_it(sources, wholes, tmp_path, monkeypatch):
    target = tmp_path / "out"
    broken_off(monkeypatch, "hf2mg", sources, target, None)
    convert("hf2mg", sources, target, only="pp=0")
    lost = hidden(target) / "data" / chosen("hf2mg", sources, "pp=0")[0]
    lost.unlink()
    broken_off(monkeypatch, "hf2mg", sources, target, "pp=0")  # the file is there again, and not whole
    assert convert("hf2mg", sources, target, only="pp=1").is_complete is False
    assert convert("hf2mg", sources, target).is_complete
    assert tree(target) == wholes["hf2mg"]


def test_a_finished_part_may_be_asked_for_again(sources, wholes, tmp_path):
    target = tmp_path / "out"
    convert("hf2mg", sources, target, only="pp=0")
    result = convert("hf2mg", sources, target, only="pp=0", verify=True)
    assert (result.is_complete, result.verified, result.resumed_tensors > 0) == (False, True, True)
    assert result.written == 0
    convert("hf2mg", sources, target, only="pp=1")
    assert tree(target) == wholes["hf2mg"]


def test_space_is_asked_for_the_part_alone(sources, tmp_path, monkeypatch):
    convert("hf2mg", sources, tmp_path / "out", only="pp=0")
    part = sum(f.nbytes for f in select_files(prepare("hf2mg", sources).plan.files, "pp=1"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=part - 1))
    with pytest.raises(MscvtError, match=f"needs {part:,} bytes more"):
        convert("hf2mg", sources, tmp_path / "out", only="pp=1")


@pytest.mark.parametrize(
    ("direction", "only", "message"),
    [
        ("hf2mg", "pp=2", "matches none of the 16 files"),
        ("hf2mg", "ep=3-1", "matches none of the 16 files"),
        ("hf2mg", "file=1", "can't understand 'file=1'; known are ep, pp, tp"),
        ("hf2mg", "pp=0,pp=1", "can't understand 'pp=1'"),
        ("hf2mg", "pp=0,", "can't understand ''"),
        ("hf2mg", "", "can't understand ''"),
        ("hf2mg", "pp=-1", "can't understand"),
        ("mg2hf", "pp=0", "can't understand 'pp=0'; known are file"),
        ("mg2hf", "file=0", "matches none"),
    ],
)
def test_a_selection_that_means_nothing_is_refused(direction, only, message, sources, tmp_path):
    with pytest.raises(MscvtError, match=message):
        convert(direction, sources, tmp_path / "out", only=only)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("direction", "only", "places", "parts"),
    [
        ("hf2mg", None, 1, ["pp=0", "pp=1"]),
        ("hf2mg", None, 3, ["pp=0,ep=0-1", "pp=0,ep=2-3", "pp=1,ep=0-1", "pp=1,ep=2-3"]),
        ("hf2mg", "tp=1,pp=1", 2, ["tp=1,pp=1,ep=0-1", "tp=1,pp=1,ep=2-3"]),
        ("mg2hf", "file=2-9", 1, ["file=2-5", "file=6-9"]),
    ],
)
def test_work_is_divided_by_stages_then_by_expert_ranks_and_never_by_tensor_ranks(
    direction, only, places, parts, sources
):
    assert divide_files(prepare(direction, sources).plan.files, only, places) == parts


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("places", [1, 2, 3, 5, 100])
def test_parts_have_every_file_once(direction, places, sources):
    files = prepare(direction, sources).plan.files
    parts = [select_files(files, only) for only in divide_files(files, None, places)]
    assert sorted(file.path for part in parts for file in part) == sorted(file.path for file in files)


@pytest.mark.parametrize("places", [1, 3])
def test_parts_compare_every_replica_and_only_those_that_they_read(places, sources):
    conversion = prepare("mg2hf", sources)
    plan, compared = conversion.plan, []

    def opened(name):
        compared.append(name)
        return conversion.source.tensor(name)

    for only in divide_files(plan.files, None, places):
        wanted = {name for file in select_files(plan.files, only) for name in file.tensors}
        check_equal_sources(plan, opened, wanted.__contains__)
    pairs = zip(compared[::2], compared[1::2], strict=True)
    assert sorted(pairs) == sorted((kept, dropped) for kept, dropped, _ in plan.equal)
