"""Progress: lines in a log, a bar on a terminal, the same numbers in both."""

import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from command_line import make_source, run_main
from json_keys import check_object
from mscvt.cli.progress import Lines, Meter, json_line, show_progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def made():
    clock, stream = Clock(), io.StringIO()
    return clock, stream, Lines(stream, clock, lambda: "12:00:00")


def test_line_is_written_when_a_phase_begins():
    _, stream, lines = made()
    lines.started("allocating", 0)
    lines.started("converting", 649_200_000)
    assert stream.getvalue() == "12:00:00 allocating\n12:00:00 converting, 649.2 MB\n"


def test_line_is_written_each_minute_with_rate_and_time_left():
    clock, stream, lines = made()
    lines.started("converting", 12_000_000_000)
    for _ in range(13):
        clock.now += 10
        lines.moved(100_000_000)
    assert stream.getvalue().splitlines()[1:] == [
        "12:00:00 converting, 600.0 MB of 12.0 GB (5%), 10.0 MB/s, 0:19:00 left",
        "12:00:00 converting, 1.2 GB of 12.0 GB (10%), 10.0 MB/s, 0:18:00 left",
    ]


def test_minute_begins_anew_with_a_phase():
    clock, stream, lines = made()
    lines.started("converting", 1000)
    clock.now += 50
    lines.started("verifying", 1000)
    clock.now += 50
    lines.moved(10)
    assert len(stream.getvalue().splitlines()) == 2


def test_time_left_is_unknown_before_anything_is_done():
    clock = Clock()
    meter = Meter(1000, clock)
    assert meter.text() == "0 B of 1.0 kB (0%), 0 B/s, ? left"
    assert Meter(0, clock).text() == ""


def test_log_file_has_every_phase_and_the_end(tmp_path):
    hf, log = make_source("llama2", tmp_path / "hf"), tmp_path / "log.txt"
    words = ["hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", "--log-file", log]
    assert run_main(*words, "--quiet").err == ""
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", when) for when, _ in lines)
    assert [what.split(",")[0] for _, what in lines] == ["planning", "allocating", "converting", "done"]
    assert run_main(*words).code == 1
    assert log.read_text().splitlines()[-1].split(maxsplit=1)[1].startswith(f"failed: {tmp_path / 'mg'}: exists")


def test_log_file_has_json_lines_with_json(tmp_path):
    hf, log = make_source("llama2", tmp_path / "hf"), tmp_path / "log.json"
    words = ["hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", "--log-file", log, "--json"]
    outcome = run_main(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["peak_memory"] > 10_000_000
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["phase"] for event in events] == ["planning", "allocating", "converting", "done"]
    assert events[2]["total_bytes"] == json.loads(outcome.out)["bytes"]
    for event in events:
        check_object("event", event)


def test_log_file_that_can_not_be_written_is_refused(tmp_path):
    hf, log = make_source("llama2", tmp_path / "hf"), tmp_path / "nowhere" / "log.txt"
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", "--log-file", log)
    assert outcome.code == 1
    assert f"--log-file {log}: can't be written: No such file or directory" in outcome.err


def test_event_has_rate_and_time_left():
    clock = Clock()
    meter = Meter(12_000, clock)
    clock.now += 10
    meter.done = 2_000
    event = json.loads(json_line("12:00:00", "converting", meter, ""))
    assert (event["bytes_per_second"], event["seconds_left"], event["message"]) == (200, 50, None)


def test_nothing_is_shown_where_it_is_not_wanted(capsys):
    with show_progress("planning", wanted=False) as (started, moved):
        started("converting", 10)
        moved(10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("options", "is_shown"), [([], True), (["--quiet"], False), (["--json"], False)])
def test_bar_is_shown_on_a_terminal(options, is_shown, tmp_path):
    hf = make_source("qwen3", tmp_path / "hf")
    command = ["hf2mg", "--load-dir", str(hf), "--save-dir", str(tmp_path / "mg"), *options]
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mscvt", *command], stdout=subprocess.PIPE, stderr=follower, env=environment
    )
    os.close(follower)
    said = b""
    try:
        while part := os.read(leader, 4096):
            said += part
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    assert ("planning" in text) == is_shown
    assert ("converting" in text) == is_shown
    assert (re.search(r"\d MB|\d kB", text) is not None) == is_shown
