"""What is unfinished is shown as far as it is, and given up without touching anything else."""

import json
import os
import shutil

import pytest

import mscvt.engine.sinks
from command_line import run_main
from json_keys import check_object
from mscvt.output.locks import open_lock
from small_conversions import PARTS, convert, hidden, tree

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.fixture
def target(sources, tmp_path):
    """A conversion of which the first stage is written, and one rank of the second."""
    for only in ("pp=0", "tp=0,pp=1,ep=0"):
        convert("hf2mg", sources, tmp_path / "out", only=only)
    return tmp_path / "out"


def status(target):
    outcome = run_main("status", target, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    shown = json.loads(outcome.out)
    check_object("status", shown)
    return shown


def refused(*words):
    outcome = run_main(*words)
    assert (outcome.code, outcome.out) == (1, "")
    return outcome.err


def test_status_says_how_far_a_conversion_is_and_what_it_lacks(sources, target):
    outcome = run_main("status", target)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == f"{target}: unfinished hf2mg of {sources.hf}"
    assert lines[1] == (
        "options: --target-tensor-parallel-size 2 --target-pipeline-parallel-size 2 --target-expert-parallel-size 4 "
        "--moe-grouped-gemm"
    )
    assert lines[2].startswith("9 of 16 files are whole, ")
    assert lines[3] == "missing: --only pp=1,ep=1-3, --only tp=1,pp=1,ep=0"
    assert f" bytes in {hidden(target)}" in lines[4]
    assert lines[5] == f"the command that began it goes on, mscvt discard {target} gives it up"


def test_unfinished_work_in_a_folder_that_may_not_be_written_to_is_shown(target, monkeypatch):
    def refusing(path, **_):
        raise PermissionError(13, os.strerror(13), str(path))

    shown = run_main("status", target)
    monkeypatch.setattr("mscvt.output.locks.open_lock", refusing)
    assert run_main("status", target) == shown
    outcome = run_main("discard", target)
    assert outcome.err.splitlines()[0].endswith("gate: Permission denied")
    assert outcome.err.splitlines()[1] == "hint: Is it another user's, or write-protected?"


def test_parts_that_are_missing_are_what_only_takes(sources, target):
    conversion = status(target)["conversion"]
    check_object("unfinished conversion", conversion)
    assert conversion["is_running"] is False
    for part in conversion["only"]:
        assert not target.exists()
        convert("hf2mg", sources, target, only=part)
    assert target.exists()
    assert status(target) == {"command": "status", "target": str(target), "conversion": None, "download": None}
    assert run_main("status", target).out == f"{target}: nothing is unfinished\n"


def test_files_that_are_partly_written_are_counted_by_their_tensors(sources, tmp_path, monkeypatch):
    target, put, left = tmp_path / "out", mscvt.engine.sinks.FileSink.put, [40]

    def failing(self, block, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, os.strerror(28))
        return put(self, block, data)

    monkeypatch.setattr(mscvt.engine.sinks.FileSink, "put", failing)
    with pytest.raises(Exception, match="the disk is full"):
        convert("hf2mg", sources, target)
    conversion = status(target)["conversion"]
    files = conversion["files"]
    assert not any(file["is_whole"] for file in files)
    assert 0 < sum(file["written"] for file in files) < sum(file["tensors"] for file in files)
    assert "missing: " not in run_main("status", target).out


def test_run_that_is_at_work_is_shown_and_not_disturbed(sources, tmp_path, monkeypatch):
    target, put, said = tmp_path / "out", mscvt.engine.sinks.FileSink.put, []

    def meanwhile(self, block, data):
        if not said:
            said.append(None)
            said[:] = [run_main("status", target), run_main("discard", target)]
        return put(self, block, data)

    monkeypatch.setattr(mscvt.engine.sinks.FileSink, "put", meanwhile)
    assert convert("hf2mg", sources, target, workers=1).is_complete
    assert said[0].out.splitlines()[-1] == "a run is at work on it"
    assert said[1].code == 1
    assert f"error: {target}: another run is writing to it" in said[1].err


@pytest.mark.parametrize("direction", ["hf2mg", "mg2hf"])
def test_discard_removes_unfinished_work_and_nothing_else(direction, sources, tmp_path):
    (tmp_path / "other").write_text("mine")
    before = tree(tmp_path)
    convert(direction, sources, tmp_path / "out", only=PARTS[direction][0])
    outcome = run_main("discard", tmp_path / "out")
    assert outcome.code == 0
    assert outcome.out.startswith(f"{tmp_path / 'out'}: removed an unfinished conversion, ")
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == ["other"]
    assert convert(direction, sources, tmp_path / "out").is_complete


def test_discard_keeps_a_finished_result_that_was_to_be_replaced(sources, tmp_path):
    target = tmp_path / "out"
    convert("hf2mg", sources, target)
    whole = tree(target)
    convert("hf2mg", sources, target, only="pp=0", overwrite=True)
    assert status(target)["conversion"]["only"]
    assert run_main("discard", target).code == 0
    assert tree(target) == whole
    assert not hidden(target).exists()


def test_discard_puts_back_what_was_moved_away(sources, tmp_path):
    target = tmp_path / "out"
    convert("hf2mg", sources, target)
    whole = tree(target)
    convert("hf2mg", sources, target, only="pp=0", overwrite=True)
    target.rename(hidden(target) / "replaced")
    assert run_main("discard", target).code == 0
    assert tree(target) == whole
    assert not hidden(target).exists()


def test_result_that_is_complete_is_said_to_be_so_and_kept(sources, tmp_path, monkeypatch):
    target = tmp_path / "out"
    with monkeypatch.context() as patched:  # as a run leaves it that is killed after the last rename
        patched.setattr("mscvt.output.hidden.HiddenFolder.remove", lambda self: None)
        convert("hf2mg", sources, target)
    whole = tree(target)
    assert run_main("status", target).out.startswith(f"{target}: is complete; a run ended before it had removed ")
    assert all(file["is_whole"] for file in status(target)["conversion"]["files"])
    assert run_main("discard", target).code == 0
    assert tree(target) == whole
    assert not hidden(target).exists()


def test_discard_refuses_a_folder_with_something_of_others(target):
    (hidden(target) / "data" / "thesis.tex").write_text("years")
    before = tree(hidden(target))
    error = refused("discard", target)
    assert "holds what no conversion wrote, so nothing is removed: data/thesis.tex" in error
    assert tree(hidden(target)).keys() - {"gate"} == before.keys() - {"gate"}


def test_hidden_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / ".out.mscvt").mkdir()
    (tmp_path / ".out.mscvt" / "thesis.tex").write_text("years")
    for command in ("status", "discard"):
        assert "is not the folder of an unfinished conversion" in refused(command, tmp_path / "out")
    assert tree(tmp_path) == {".out.mscvt/thesis.tex": b"years"}


def test_name_that_is_nearly_that_of_unfinished_work_is_suggested(target):
    for command in ("status", "discard"):
        error = refused(command, target.parent / "outt")
        assert "outt: is not there, and nothing of it is unfinished" in error
        assert "Did you mean out?" in error


def test_discard_of_what_is_finished_is_refused(sources, tmp_path):
    convert("hf2mg", sources, tmp_path / "out")
    before = tree(tmp_path)
    assert refused("discard", tmp_path / "out") == f"error: {tmp_path / 'out'}: nothing is unfinished there\n"
    assert tree(tmp_path) == before


def test_record_that_is_damaged_is_refused(target):
    record = hidden(target) / "conversion.json"
    said = json.loads(record.read_text())
    said["files"][0]["bytes"] = "many"
    record.write_text(json.dumps(said))
    for command in ("status", "discard"):
        assert "its conversion.json is damaged" in refused(command, target)


@pytest.fixture
def download(tmp_path):
    """A download of which one file is whole, one has begun, one was there before, and one is of others."""
    folder = tmp_path / "hf"
    (folder / ".mscvt-download").mkdir(parents=True)
    files = {"config.json": 2, "model.safetensors": 10, "tokenizer.json": 2}
    record = {
        **{"what": "a download of mscvt", "source": "modelscope", "repository": "mine/Small", "asked": "v1"},
        **{"revision": "v1", "kept": ["tokenizer.json"]},
        "files": {name: {"bytes": size} for name, size in files.items()},
    }
    (folder / ".mscvt-download.json").write_text(json.dumps(record))
    (folder / ".mscvt-download" / "model.safetensors.part").write_bytes(bytes(4))
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "notes.md").write_text("mine")
    return folder


def test_status_says_how_far_a_download_is(download):
    shown = status(download)["download"]
    check_object("unfinished download", shown)
    assert (shown["bytes"], shown["on_disk"], shown["missing"]) == (14, 8, ["model.safetensors"])
    assert run_main("status", download).out.splitlines() == [
        f"{download}: unfinished download of mine/Small at v1 from modelscope",
        "2 of 3 files are whole, 8 of 14 bytes have arrived",
        "missing: model.safetensors",
        f"mscvt download mine/Small --to {download} --source modelscope --revision v1 goes on, "
        f"mscvt discard {download} gives it up",
    ]


def test_discard_removes_what_a_download_brought_and_nothing_else(download):
    outcome = run_main("discard", download)
    assert (
        outcome.out
        == f"{download}: removed an unfinished download, 8 bytes; what was there before stays: tokenizer.json\n"
    )
    assert tree(download) == {"tokenizer.json": b"{}", "notes.md": b"mine"}
    for path in download.iterdir():
        path.unlink()
    assert "nothing is unfinished there" in refused("discard", download)


def test_download_that_is_at_work_is_shown_and_not_disturbed(download):
    lock = open_lock(download / ".mscvt-download" / "lock")
    before = tree(download)
    assert run_main("status", download).out.splitlines()[-1] == "a run is at work on it"
    assert "another run is downloading into it" in refused("discard", download)
    os.close(lock)
    assert tree(download) == before


def test_finished_download_is_said_with_what_it_is(download):
    shutil.rmtree(download / ".mscvt-download")
    assert run_main("status", download).out == f"{download}: nothing is unfinished; it holds mine/Small at v1\n"


def test_discard_removes_nothing_through_a_link(download, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.tex").write_text("years")
    (download / "sub").symlink_to(tmp_path / "elsewhere")
    record = json.loads((download / ".mscvt-download.json").read_text())
    record["files"]["sub/thesis.tex"] = {"bytes": 5}
    (download / ".mscvt-download.json").write_text(json.dumps(record))
    assert run_main("discard", download).code == 0
    assert (tmp_path / "elsewhere" / "thesis.tex").read_text() == "years"
