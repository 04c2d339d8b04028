"""Ctrl-C: the command ends within a second, says how to go on, and goes on."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from typer.testing import CliRunner

from mscvt.cli.app import app
from mscvt.engine.sinks import FileSink
from mscvt.errors import MscvtError
from small_conversions import DIRECTIONS, convert, hidden, journalled, tree

SLOW = """
import os, sys, time
from mscvt.cli.main import main
from mscvt.engine.sinks import FileSink
put = FileSink.put
def slow_put(self, block, data):
    os.write(1, b"writing\\n")
    time.sleep({seconds})
    return put(self, block, data)
FileSink.put = slow_put
sys.argv[0] = "mscvt"
main()
"""


def command(direction, sources, target):
    if direction == "mg2hf":
        return ["mg2hf", "--load-dir", str(sources.mg), "--save-dir", str(target)]
    split = ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"]
    return ["hf2mg", "--load-dir", str(sources.hf), "--save-dir", str(target), *split]


@pytest.mark.parametrize(("direction", "seconds"), [("hf2mg", 0.5), ("mg2hf", 600)])
def test_ctrl_c_ends_within_a_second_and_the_same_command_completes(direction, seconds, sources, tmp_path):
    arguments = command(direction, sources, tmp_path / "out")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(seconds=seconds), *arguments, "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, said = process.communicate(timeout=120)
    took = time.monotonic() - began
    assert process.returncode == 130
    root = hidden(tmp_path / "out")
    kept, whole = re.fullmatch(
        rf"interrupted; ([\d,]+) of ([\d,]+) bytes are kept in {root}; the same command goes on from there, "
        rf"mscvt discard {tmp_path / 'out'} gives them up",
        said.strip(),
    ).groups()
    assert int(kept.replace(",", "")) < int(whole.replace(",", ""))
    assert took < 100  # 0.8 s where nothing else runs; without the limit on waiting it would be ten minutes
    assert not (tmp_path / "out").exists()
    assert hidden(tmp_path / "out").exists()
    for target in ("out", "whole"):
        done = CliRunner().invoke(app, command(direction, sources, tmp_path / target), catch_exceptions=False)
        assert done.exit_code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("mscvt.jobs.plans.make_plan", "nothing was begun"),  # while planning
        ("mscvt.jobs.conversion.check_space", "nothing was begun"),
        ("mscvt.jobs.conversion.allocate_files", "nothing was begun"),
        ("mscvt.engine.run_plan", "0 of "),
        ("mscvt.output.staging.Staging.complete", ""),
    ],
)
def test_ctrl_c_in_any_phase_says_how_to_go_on(where, says, direction, sources, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(where, interrupted)
        result = CliRunner().invoke(app, command(direction, sources, tmp_path / "out"), catch_exceptions=False)
    assert result.exit_code == 130
    assert f"interrupted; {says}" in result.stderr
    assert "the same command goes on" in result.stderr
    if says == "":  # all was written
        kept, whole = re.search(r"interrupted; ([\d,]+) of ([\d,]+) bytes", result.stderr).groups()
        assert kept == whole
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, command(direction, sources, tmp_path / "out"), catch_exceptions=False)
    assert done.exit_code == 0
    assert sorted(os.listdir(tmp_path)) == ["out"]


def wait_for_workers():
    deadline = time.monotonic() + 30
    while any(thread.name.startswith("mscvt-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_library_call_that_is_interrupted_leaves_its_locks_and_files_to_a_worker_that_still_writes(
    sources, tmp_path, monkeypatch
):
    target, put, go_on, targets = tmp_path / "out", FileSink.put, threading.Event(), []

    def stuck(self, block, data):
        if not targets:
            targets.append([self._paths[self.places[name].file] for name in block.content.targets])
            signal.raise_signal(signal.SIGINT)
            assert go_on.wait(30)
            put(self, block, data)
            targets.append([path.stat().st_mtime_ns for path in targets[0]])
            return 0
        raise AssertionError("a worker took a block after the interrupt")

    descriptors = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(FileSink, "put", stuck)
        with pytest.raises(KeyboardInterrupt, match="0 of"):
            convert("hf2mg", sources, target, workers=1)
        with pytest.raises(MscvtError, match="another run is writing"):
            convert("hf2mg", sources, target)
        go_on.set()
        for thread in threading.enumerate():
            if thread.name.startswith("mscvt-"):
                thread.join(30)
    assert len(targets) == 2  # its files were open to the end
    assert journalled(target) == 0
    gc.collect()  # of the source
    assert set(os.listdir("/proc/self/fd")) <= descriptors
    assert convert("hf2mg", sources, target, resume=True).resumed_tensors == 0
    convert("hf2mg", sources, tmp_path / "whole")
    assert tree(target) == tree(tmp_path / "whole")


def test_a_worker_that_waits_for_the_disk_when_interrupted_notes_nothing(sources, tmp_path, monkeypatch):
    target, fsync, go_on, waited = tmp_path / "out", os.fsync, threading.Event(), []

    def slow(descriptor):
        if threading.current_thread().name.startswith("mscvt-") and not waited:
            waited.append(descriptor)
            signal.raise_signal(signal.SIGINT)
            assert go_on.wait(30)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(KeyboardInterrupt):
        convert("hf2mg", sources, target, workers=1)
    go_on.set()
    wait_for_workers()
    assert waited
    assert journalled(target) == 0


def test_ctrl_c_while_verifying_says_that_nothing_was_changed(sources, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mscvt.engine.run_plan", interrupted)
    command = ["verify", "--hf", str(sources.hf), "--mg", str(sources.mg)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 130
    assert "interrupted; nothing was changed" in result.stderr
