"""How many files a conversion has open, and what it does where that is more than the system allows."""

import os
import re
import resource

import pytest

from mscvt.engine.sinks import FileSink
from mscvt.errors import MscvtError
from mscvt.jobs.conversion import Interrupted
from mscvt.jobs.verify import verify_checkpoints
from mscvt.output.files import OpenFiles
from mscvt.output.limits import OTHER_FILES, allow_open_files
from mscvt.plugins.registry import load_registry
from small_conversions import DIRECTIONS, convert, tree

pytestmark = pytest.mark.usefixtures("no_sync")


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def few_files():
    """A soft limit that leaves room for a few more files than are open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 12, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("only", [None, "pp=0-1"])
def test_more_files_than_the_soft_limit_allows_are_written(only, sources, tmp_path, few_files):
    result = convert("hf2mg", sources, tmp_path / "out", only=only)
    assert (result.files, result.is_complete) == (16, True)


def test_more_files_than_the_soft_limit_allows_are_compared(sources, few_files):
    assert verify_checkpoints(hf=sources.hf, mg=sources.mg, registry=load_registry()).is_equal


def test_a_hard_limit_below_one_file_that_is_written_is_refused_before_anything_is_begun(
    sources, tmp_path, monkeypatch
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 100))
    with pytest.raises(MscvtError, match=r"files must be open at once, the system allows 100"):
        convert("hf2mg", sources, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hard", [4 * 13, 4 * 13 + 1])
def test_as_many_files_are_written_at_once_as_the_hard_limit_allows(hard, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, OTHER_FILES + hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: None)
    assert allow_open_files(read=5, written=22) == 21
    assert allow_open_files(read=5, written=21) == 21
    assert allow_open_files(read=26) == 0
    for read, written in ((27, 0), (26, 1)):
        with pytest.raises(MscvtError, match=f"^{OTHER_FILES + 54} files must be open"):
            allow_open_files(read=read, written=written)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mapped", [1, 3])
def test_files_beyond_the_hard_limit_are_written_a_few_at_a_time(direction, mapped, sources, tmp_path, monkeypatch):
    convert(direction, sources, tmp_path / "alone")
    most, opened, asked = [0], [], []

    class Watched(OpenFiles):
        def __init__(self, paths):
            super().__init__(paths)
            opened.append(len(paths))
            most[0] = max(most[0], open_files())

    def allow(**wanted):
        asked.append(wanted)
        return min(3, allow_open_files(**wanted))

    monkeypatch.setattr("mscvt.jobs.conversion.allow_open_files", allow)
    monkeypatch.setattr("mscvt.jobs.conversion.OpenFiles", Watched)
    monkeypatch.setattr("mscvt.formats.files._MOST_MAPPED", mapped)
    before = open_files()
    result = convert(direction, sources, tmp_path / "out", verify=True)
    assert (result.is_complete, result.resumed_tensors, result.verified) == (True, 0, True)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")
    assert result.written == result.nbytes
    assert asked == [{"read": 2 * mapped, "written": result.files}]  # as many of what is verified
    assert sum(opened) == result.files > 3 >= max(opened)
    assert most[0] <= before + 2 * 3 + 2 * mapped + 3  # with the folder's own locks
    assert open_files() == before


def test_interrupt_between_files_that_are_written_a_few_at_a_time_says_what_is_kept_of_all(
    sources, tmp_path, monkeypatch
):
    monkeypatch.setattr("mscvt.jobs.conversion.allow_open_files", lambda **wanted: 6)
    put, count = FileSink.put, []

    def stops(self, block, runs):
        count.append(block)
        if len(count) == 60:
            raise KeyboardInterrupt
        return put(self, block, runs)

    with monkeypatch.context() as patched:
        patched.setattr(FileSink, "put", stops)
        with pytest.raises(Interrupted) as caught:
            convert("hf2mg", sources, tmp_path / "out", workers=1)
    kept, nbytes = (
        int(word.replace(",", "")) for word in re.match(r"(\S+) of (\S+) bytes", str(caught.value)).groups()
    )
    result = convert("hf2mg", sources, tmp_path / "out", resume=True)
    assert result.nbytes == nbytes
    assert 0 < kept == nbytes - result.written < nbytes
    assert tree(tmp_path / "out") == tree(sources.mg)


@pytest.mark.parametrize(("read", "written"), [(20, 0), (12, 8)])
def test_a_limit_that_suffices_is_left_alone(read, written):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OTHER_FILES + 40, before[1]))
        allow_open_files(read=read, written=written)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (OTHER_FILES + 40, before[1])
        allow_open_files(read=read + 1, written=written)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (OTHER_FILES + 42, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
