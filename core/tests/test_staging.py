"""The hidden folder by itself: a crash between any two steps, runs at the same time, awkward targets."""

import fcntl
import os
import random
import shutil
import threading
from contextlib import suppress
from functools import partial

import pytest

from mscvt.errors import MscvtError
from mscvt.output.locks import gate
from staged_runs import FILES, NEW, OLD, begin, hidden, make, run, stage, track, tree, write

STEPS = ("rename", "replace", "unlink", "rmdir", "mkdir")


class Killed(BaseException):
    """Nothing that the process does after this has any effect."""


def run_until(step, monkeypatch, target, **how):
    """Run, and be killed before the given step; returns whether that many steps were taken."""
    taken, opened, count = [], [], iter(range(10**9))
    with monkeypatch.context() as patched:
        for name in STEPS:

            def counted(*args, real, **kwargs):
                if next(count) >= step:
                    taken.append(step)
                    raise Killed
                return real(*args, **kwargs)

            patched.setattr(os, name, partial(counted, real=getattr(os, name)))

        def opens(*args, _real=os.open, **kwargs):
            if taken:
                raise Killed
            opened.append(_real(*args, **kwargs))
            return opened[-1]

        patched.setattr(os, "open", opens)
        try:
            run(target, **how)
        except Killed:
            for descriptor in opened:  # the system does this for a process that is killed
                with suppress(OSError):
                    os.close(descriptor)
            return True
    return False


@pytest.mark.parametrize("had_result", [False, True])
def test_same_command_completes_after_a_crash_before_any_step(had_result, tmp_path, monkeypatch):
    how = {"overwrite": had_result}
    for step in range(200):
        target = tmp_path / f"target{step}"
        if had_result:
            make(target, OLD)
        was_killed = run_until(step, monkeypatch, target, **how)
        there = tree(target) if target.exists() else None
        assert there in ((OLD, NEW, None) if had_result else (NEW, None)), step
        if there is None and had_result:
            assert tree(hidden(target) / "replaced") == OLD, step
        if there == NEW and not (hidden(target) / "conversion.json").exists():
            with pytest.raises(MscvtError, match="exists and is not empty"):  # there is nothing left to go on with
                run(target)
        else:
            assert run(target, **how) is True, step
        assert tree(target) == NEW, step
        assert not hidden(target).exists(), step
        if not was_killed:
            break
    assert 20 < step < 199


@pytest.mark.parametrize("other", ["without overwrite", "with overwrite"])
def test_another_command_after_a_crash_mixes_nothing(other, tmp_path, monkeypatch):
    overwrite = other == "with overwrite"
    for step in range(200):
        target = tmp_path / f"target{step}"
        make(target, OLD)
        was_killed = run_until(step, monkeypatch, target, overwrite=True)
        try:
            assert run(target, overwrite=overwrite, identity="two") is True
        except MscvtError:
            assert not overwrite
            assert tree(target) in (OLD, NEW), step
        else:
            assert overwrite
            assert tree(target) == NEW
            assert not hidden(target).exists()
        if not was_killed:
            break


def test_a_second_run_is_refused_at_once_and_harms_nothing(tmp_path):
    first = begin(tmp_path / "out")
    with pytest.raises(MscvtError, match=r"another run is writing some of the same files, a/x.pt"):
        begin(tmp_path / "out")
    with pytest.raises(MscvtError, match="another run is writing to it"):
        begin(tmp_path / "out", identity="two", overwrite=True)
    assert (first.data / "begun").exists()
    first.close()
    begin(tmp_path / "out").close()


def test_runs_of_different_parts_share_and_of_the_same_part_do_not(tmp_path):
    first = begin(tmp_path / "out", files=FILES[:2])
    second = begin(tmp_path / "out", files=FILES[2:])
    for files in (FILES[1:2], FILES):
        with pytest.raises(MscvtError, match=r"writing some of the same files, a/[xy].pt"):
            begin(tmp_path / "out", files=files)
    with pytest.raises(MscvtError, match="differs from this one in what"):
        begin(tmp_path / "out", files=("c",), identity="two")
    with pytest.raises(MscvtError, match="another run is writing to it"):
        begin(tmp_path / "out", files=("c",), identity="two", overwrite=True)
    first.close()
    begin(tmp_path / "out", files=FILES[:2]).close()
    second.close()


def test_the_whole_run_writes_only_what_parts_have_left_and_beside_one_that_is_whole(tmp_path):
    target = tmp_path / "out"
    assert run(target, files=FILES[:1]) is False
    whole = begin(target)
    assert set(whole.records) == set(FILES[1:])
    (whole.data / "begun").unlink()
    write(whole, whole.records)
    assert whole.complete(FILES, track, overwrite=False) is True
    assert tree(target) == NEW
    assert not hidden(target).exists()


def test_a_run_that_has_all_parts_whole_leaves_the_rename_to_one_still_at_work(tmp_path):
    target = tmp_path / "out"
    again = stage(target)
    assert run(target, files=FILES[:1]) is False
    again.open(overwrite=False, resume=False, files=FILES[:1])
    assert run(target, files=FILES[1:]) is False
    assert not target.exists()
    assert again.complete(FILES, track, overwrite=False) is True
    again.close()
    assert tree(target) == NEW
    assert not hidden(target).exists()


def test_a_run_that_was_refused_or_came_too_early_does_not_keep_the_last_one_from_completing(tmp_path):
    target = tmp_path / "out"
    early, last, refused = stage(target), stage(target), stage(target)
    early.open(overwrite=False, resume=False, files=FILES[:1])
    write(early, FILES[:1])
    last.open(overwrite=False, resume=False, files=FILES[1:])
    with pytest.raises(MscvtError, match="another run is writing"):
        refused.open(overwrite=False, resume=False, files=FILES[1:])
    assert early.complete(FILES, lambda folder: None, overwrite=False) is False
    write(last, FILES[1:])
    # Neither of the others has been closed yet.
    assert last.complete(FILES, track, overwrite=False) is True
    for staging in (early, last, refused):
        staging.close()
    assert tree(target) == NEW
    assert not hidden(target).exists()


def test_parts_that_begin_and_end_at_the_same_time_complete_exactly_once(tmp_path):
    draw = random.Random(4)
    for number in range(30):
        target, results = tmp_path / f"out{number}", []
        order = draw.sample(FILES, len(FILES))

        def part(file, target=target, results=results):
            results.append(run(target, files=(file,)))

        threads = [threading.Thread(target=part, args=(file,)) for file in order]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [False, False, True]
        assert tree(target) == NEW
        assert not hidden(target).exists()


def test_equal_commands_at_the_same_time_give_one_result_and_clear_refusals(tmp_path):
    for number in range(30):
        target, results = tmp_path / f"out{number}", []

        def attempt(target=target, results=results):
            try:
                results.append(run(target))
            except MscvtError as error:
                results.append(error.message)

        threads = [threading.Thread(target=attempt) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results.count(True) == 1
        refused = [r for r in results if isinstance(r, str)]  # False: came when all was written, left it to another
        assert all("another run" in r or "not empty" in r for r in refused), results
        assert tree(target) == NEW
        assert not hidden(target).exists()


def test_a_gate_that_was_removed_while_waiting_is_not_taken_for_the_new_one(tmp_path, monkeypatch):
    folder, flock = tmp_path / "folder", fcntl.flock

    def locked_too_late(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        shutil.rmtree(folder)  # by who was in there
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", locked_too_late)
    with gate(folder) as entered:
        assert entered
        assert (folder / "gate").exists()
        with folder.joinpath("gate").open() as other, pytest.raises(BlockingIOError):
            flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
