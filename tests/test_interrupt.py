"""Ctrl-C: the command ends within a second, says how to go on, and goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from mscvt.cli.main import app
from small_conversions import DIRECTIONS, hidden, make_sources, tree

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


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("sources"))


def command(direction, sources, target):
    if direction == "mg2hf":
        return ["mg2hf", "--load-dir", str(sources.mg), "--save-dir", str(target)]
    split = ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"]
    return ["hf2mg", "--load-dir", str(sources.hf), "--save-dir", str(target), *split]


@pytest.mark.parametrize(("direction", "seconds"), [("hf2mg", 0.05), ("mg2hf", 60)])
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
    _, said = process.communicate(timeout=20)
    took = time.monotonic() - began
    assert process.returncode == 130
    assert said.strip() == "interrupted; the same command goes on from what was recorded last"
    assert took < 5  # 0.8 s where nothing else runs; without the limit on waiting it would be a minute
    assert not (tmp_path / "out").exists()
    assert hidden(tmp_path / "out").exists()
    for target in ("out", "whole"):
        done = CliRunner().invoke(app, command(direction, sources, tmp_path / target), catch_exceptions=False)
        assert done.exit_code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "where",
    [
        "mscvt.jobs.prepare._identity",  # while planning
        "mscvt.jobs.conversion._allocate",
        "mscvt.engine.run_plan",
        "mscvt.output.staging.Staging.complete",
    ],
)
def test_ctrl_c_in_any_phase_says_how_to_go_on(where, direction, sources, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(where, interrupted)
        result = CliRunner().invoke(app, command(direction, sources, tmp_path / "out"), catch_exceptions=False)
    assert result.exit_code == 130
    assert "interrupted; the same command goes on from what was recorded last" in result.stderr
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, command(direction, sources, tmp_path / "out"), catch_exceptions=False)
    assert done.exit_code == 0
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_ctrl_c_while_verifying_says_that_nothing_was_changed(sources, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mscvt.engine.run_plan", interrupted)
    command = ["verify", "--hf", str(sources.hf), "--mg", str(sources.mg)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 130
    assert "interrupted; nothing was changed" in result.stderr
