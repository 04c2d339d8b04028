"""Downloading from a hub: transfers that break or arrive wrong, runs that are ended, and what is there already."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from command_line import run_main
from downloads import INDEX, LAST, NAME, SHARD, check_whole, model_files, names_in, refused
from hub_server import COMMIT
from json_keys import check_object
from mscvt.jobs.download import download
from mscvt.jobs.prepared import Interrupted


def test_transfers_that_break_go_on_where_they_stopped(hub, tmp_path):
    hub.repositories[NAME].cuts = {SHARD: [1000, 0, 500], "config.json": [3]}
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    check_whole(tmp_path / "hf")
    ranges = [span for _, path, span in hub.requests if path == SHARD]
    size = len(model_files()[SHARD])
    assert ranges == [f"bytes={start}-{size - 1}" for start in (0, 1000, 1000, 1500)]


def test_next_run_goes_on_where_the_last_one_stopped_and_asks_for_nothing_twice(hub, tmp_path):
    hub.repositories[NAME].cuts = {LAST: [2000, 0, 0, 0]}
    error = refused(NAME, "--to", tmp_path / "hf", "--connections", "1")
    assert f"{LAST}: the transfer broke 3 times at byte 2,000 of " in error
    assert "the same command goes on" in error
    assert LAST not in names_in(tmp_path / "hf")
    assert run_main("hf2mg", "--load-dir", tmp_path / "hf", "--save-dir", tmp_path / "mg").code == 1
    hub.requests.clear()
    outcome = run_main("download", NAME, "--to", tmp_path / "hf", "--json")
    assert [(path, span) for _, path, span in hub.requests] == [(LAST, f"bytes=2000-{len(model_files()[LAST]) - 1}")]
    check_object("download", json.loads(outcome.out))
    assert json.loads(outcome.out)["fetched"] == len(model_files()[LAST]) - 2000
    check_whole(tmp_path / "hf")
    hub.requests.clear()
    assert "nothing was left to be fetched" in run_main("download", NAME, "--to", tmp_path / "hf").out
    assert hub.requests == []


def test_server_that_knows_no_ranges_sends_it_all_again(hub, tmp_path):
    hub.repositories[NAME].knows_ranges = False
    hub.repositories[NAME].cuts = {SHARD: [1000]}
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    check_whole(tmp_path / "hf")


def test_answer_that_passes_is_waited_for(hub, tmp_path):
    hub.repositories[NAME].statuses = {SHARD: [503], "config.json": [429], "": [502, 503]}
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    check_whole(tmp_path / "hf")


def test_wrong_bytes_are_fetched_once_more(hub, tmp_path):
    hub.repositories[NAME].wrong = {SHARD: 1, "config.json": 1, INDEX: 1}
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    check_whole(tmp_path / "hf")


@pytest.mark.parametrize("file", [SHARD, "config.json", INDEX])
def test_file_that_keeps_arriving_wrong_is_refused_and_not_there(file, hub, tmp_path):
    hub.repositories[NAME].wrong = {file: 9}
    assert f"{file}: wrong bytes arrived twice, their " in refused(NAME, "--to", tmp_path / "hf")
    assert not (tmp_path / "hf" / file).exists()


def test_server_that_sends_more_than_was_stated_is_refused(hub, tmp_path):
    hub.repositories[NAME].sends_more = True
    assert "the server sends more than the" in refused(NAME, "--to", tmp_path / "hf")


def test_files_that_are_there_already_are_compared_and_kept(hub, tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in (SHARD, "config.json"):
        (folder / name).write_bytes(model_files()[name])
    (folder / "notes.md").write_text("mine")
    assert run_main("download", NAME, "--to", folder).code == 0
    assert not {SHARD, "config.json"} & set(hub.fetched())
    assert (folder / "notes.md").read_text() == "mine"


def test_files_in_the_way_are_refused_and_left_alone(hub, tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / SHARD).write_bytes(model_files()[LAST])
    (folder / "model.safetensors").write_bytes(b"of another model")
    error = refused(NAME, "--to", folder)
    assert f"{SHARD} is another file than that of {NAME}" in error
    assert f"model.safetensors would be read in place of {INDEX}" in error
    assert names_in(folder) == {SHARD, "model.safetensors"}


def test_folder_of_another_download_is_refused(hub, tmp_path):
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    hub.repositories["mine/Other"] = hub.repositories[NAME]
    for words in (["mine/Other"], [NAME, "--revision", "master"], [NAME, "--source", "modelscope"]):
        assert f"{tmp_path / 'hf'}: is a download of {NAME} from huggingface" in refused(
            *words, "--to", tmp_path / "hf"
        )
    assert run_main("download", NAME, "--to", tmp_path / "hf", "--revision", COMMIT).code == 0


def test_record_that_is_damaged_is_refused(hub, tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / ".mscvt-download.json").write_text('{"what": "a download of mscvt", "files": {"../x": {}}}')
    assert "is damaged, or another program's" in refused(NAME, "--to", tmp_path / "hf")


def test_second_run_into_the_same_folder_is_refused(hub, monkeypatch, tmp_path):
    said = []

    def begin(*arguments, **options):
        said.append(refused(NAME, "--to", tmp_path / "hf"))
        raise KeyboardInterrupt

    monkeypatch.setattr("mscvt.jobs.download._fetch_all", begin)
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 130
    assert "another run is downloading into it" in said[0]


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(hub, monkeypatch, tmp_path):
    def interrupted(futures, **options):
        raise KeyboardInterrupt

    hub.repositories[NAME].cuts = {SHARD: [1500, 0, 0, 0]}
    with monkeypatch.context() as patched:
        patched.setattr("mscvt.jobs.download.wait", interrupted)
        with pytest.raises(Interrupted, match=r"of [\d,]+ bytes are kept in .*/hf; the same command goes on"):
            download(NAME, tmp_path / "hf")
    while any(thread.name.startswith("mscvt-download") for thread in threading.enumerate()):
        pass
    hub.repositories[NAME].cuts = {}
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    check_whole(tmp_path / "hf")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_run_that_is_ended_leaves_nothing_that_looks_whole_and_the_next_one_goes_on(how, hub, tmp_path):
    hub.repositories[NAME].stalls = {SHARD: 3000}
    hub.is_stalled.clear()
    program = [sys.executable, "-m", "mscvt", "download", NAME, "--to", str(tmp_path / "hf")]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert hub.is_stalled.wait(60)
        part = tmp_path / "hf" / ".mscvt-download" / f"{SHARD}.part"
        deadline = time.monotonic() + 60
        while (not part.exists() or part.stat().st_size < 3000) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(how)
        _, said = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert how == signal.SIGKILL or f"bytes are kept in {tmp_path / 'hf'}; the same command goes on from there" in said
    assert SHARD not in names_in(tmp_path / "hf")
    assert "check" in run_main("hf2mg", "--load-dir", tmp_path / "hf", "--save-dir", tmp_path / "mg").err
    hub.requests.clear()
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    assert ("GET", SHARD, f"bytes=3000-{len(model_files()[SHARD]) - 1}") in hub.requests
    check_whole(tmp_path / "hf")


@pytest.mark.parametrize("where", ["folder", "inside"])
def test_link_in_the_place_of_what_is_on_its_way_is_not_followed(where, hub, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    staging = tmp_path / "hf" / ".mscvt-download"
    link = staging if where == "folder" else staging / "sub"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    assert "which no download makes" in refused(NAME, "--to", tmp_path / "hf")
    assert list((tmp_path / "elsewhere").iterdir()) == []
