"""Awkward targets: links, spellings, folders that are taken, records that are damaged."""

import os
import shutil
from pathlib import Path

import pytest

from mscvt.errors import MscvtError
from mscvt.output.planned import planned_files
from mscvt.output.unfinished import discard_conversion
from staged_runs import FILES, NEW, OLD, begin, hidden, make, run, stage, tree, write


def test_a_refused_run_leaves_nothing(tmp_path):
    make(tmp_path / "full", {"notes.txt": "mine"})
    refusals = [
        ({"target": tmp_path / "full"}, "exists and is not empty"),
        ({"target": tmp_path / "full", "overwrite": True}, "is no checkpoint"),
        ({"target": tmp_path / "new", "resume": True}, "no unfinished conversion to resume"),
        ({"target": tmp_path / "full" / "notes.txt"}, "is not a folder"),
    ]
    for how, message in refusals:
        with pytest.raises(MscvtError, match=message):
            run(**how)
    assert tree(tmp_path) == {"full/notes.txt": "mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


@pytest.mark.parametrize("record", ['{"what": "on', '{"what": "one"}', "[]", ""])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_whose_record_is_not_ours_is_left_as_it_is(record, overwrite, tmp_path):
    begin(tmp_path / "out").close()
    (hidden(tmp_path / "out") / "conversion.json").write_text(record)
    before = tree(tmp_path)
    with pytest.raises(MscvtError, match=r"is not the folder of an unfinished conversion.* is damaged"):
        run(tmp_path / "out", overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_hidden_folder_without_a_record_is_left_as_it_is(overwrite, tmp_path):
    make(hidden(tmp_path / "out"), {"data/thesis.tex": "years", "replaced/x": "x", "gate": ""})
    (tmp_path / ".two.mscvt").mkdir()
    make(tmp_path / ".two.mscvt", {"notes.txt": "mine"})
    before = tree(tmp_path)
    for target, held in (("out", "data, replaced"), ("two", "notes.txt")):
        with pytest.raises(MscvtError, match=f"it has no conversion.json, and holds {held}"):
            run(tmp_path / target, overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["folder", "nothing", "file"])
def test_a_hidden_folder_that_is_a_link_or_a_file_is_not_followed(what, overwrite, tmp_path):
    make(tmp_path / "victim", {"data/thesis.tex": "years", "conversion.json": "{}"})
    if what == "file":
        hidden(tmp_path / "out").write_text("mine")
    else:
        hidden(tmp_path / "out").symlink_to(tmp_path / ("victim" if what == "folder" else "nowhere"))
    before = tree(tmp_path)
    with pytest.raises(MscvtError, match=r"so nothing in it is touched: it is (a link|no folder)"):
        run(tmp_path / "out", overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("where", ["data", "data/a", "data/a/x.pt", "parts", "parts/a%2Fx.pt", "replaced", "lock"])
def test_a_link_inside_of_the_hidden_folder_is_not_followed(where, overwrite, tmp_path):
    begin(tmp_path / "out").close()
    link = hidden(tmp_path / "out") / where
    make(tmp_path / "victim", {"x.pt": "years", "y.pt": "years"})
    if link.is_dir():
        link.rename(tmp_path / "aside")
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "victim" / ("x.pt" if where.endswith(("x.pt", "lock")) else ""))
    before = tree(tmp_path)
    with pytest.raises(MscvtError, match=f"{where} is neither a file nor a folder"):
        run(tmp_path / "out", overwrite=overwrite)
    assert tree(tmp_path) == before


def test_resume_goes_on_with_unfinished_work(tmp_path):
    begin(tmp_path / "out").close()
    with pytest.raises(MscvtError, match="differs from this one in what") as caught:
        run(tmp_path / "out", resume=True, identity="two")
    assert caught.value.faults == ("what: one there, two here",)
    again = stage(tmp_path / "out")
    again.open(overwrite=False, resume=True, files=FILES)
    assert (again.data / "begun").exists()
    again.close()


def test_overwrite_replaces_exact_paths_and_refuses_everything_else(tmp_path):
    target = tmp_path / "out"
    for name, kind in [
        ("iter_0000001/precious.txt", "file"),
        ("iter_0000001/x.pt/thesis", "file"),
        ("model-old.safetensors", "folder"),
        ("a/x.pt", "folder"),
        ("a/y.pt", "link"),
        ("a", "link"),
    ]:
        make(target, {"latest_checkpointed_iteration.txt": "7"})
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            (target / name).write_text("mine")
        elif kind == "folder":
            (target / name).mkdir()
        else:
            (target / name).symlink_to(tmp_path)
        with pytest.raises(MscvtError, match=rf"is no checkpoint that .* \(it holds {name}\)"):
            run(target, overwrite=True)
        assert os.path.lexists(target / name)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
        shutil.rmtree(target)


def test_what_is_put_into_the_old_checkpoint_at_the_last_moment_is_kept(tmp_path, monkeypatch):
    target = tmp_path / "out"
    make(target, OLD)
    staging = begin(target, overwrite=True)
    (staging.data / "begun").unlink()
    write(staging, FILES)
    rename = os.rename

    def last_moment(old, new):
        if Path(old) == target:
            (target / "iter_0000001" / "late.txt").write_text("mine")
        rename(old, new)

    monkeypatch.setattr(os, "rename", last_moment)
    assert staging.complete(FILES, lambda folder: None, overwrite=True) is True
    assert tree(hidden(target)) == {"replaced/iter_0000001/late.txt": "mine"}
    assert tree(target) == dict.fromkeys(FILES, "new")


def test_the_old_checkpoint_is_not_lost_where_both_it_and_the_new_one_were_taken_away(tmp_path):
    target = tmp_path / "out"
    begin(target).close()
    shutil.rmtree(hidden(target) / "data")
    make(hidden(target) / "replaced", OLD)
    for overwrite in (False, True):
        with pytest.raises(MscvtError, match="what it was before is in"):
            run(target, overwrite=overwrite)
    assert tree(hidden(target) / "replaced") == OLD


@pytest.mark.parametrize(
    "said",
    [
        '{"output": {}, "replaced": ["../../mine"]}',
        '{"output": {"/mine": 1}, "replaced": []}',
        '{"output": {}, "replaced": [1]}',
        '{"output": [1], "replaced": []}',
        "[1]",
        "[" * 5000,
    ],
)
def test_nothing_is_removed_that_a_forged_record_of_the_last_renames_names(said, tmp_path):
    target = tmp_path / "out"
    for folder in (target, hidden(target) / "data", hidden(target) / "replaced"):
        folder.mkdir(parents=True, exist_ok=True)
    record = '{"what": "an unfinished conversion of mscvt", "identity": {}}'
    make(hidden(target), {"conversion.json": record, "commit.json": said})
    make(tmp_path, {"mine": "mine"})
    with pytest.raises(MscvtError, match=r"its commit\.json"):
        discard_conversion(target)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("path", ["", ".", "..", "a/../../b", "/b", "\ud800"])
def test_record_of_a_file_that_is_not_below_the_output_is_damaged(path):
    assert planned_files([{"path": path, "tensors": 1, "bytes": 1, "labels": {}}]) is None


@pytest.mark.parametrize("change", ["removed", "shorter", "folder removed"])
def test_work_that_was_committed_and_is_not_there_any_more_is_done_again(change, tmp_path, monkeypatch):
    target = tmp_path / "out"
    monkeypatch.setattr("mscvt.output.hidden.HiddenFolder.remove", lambda self: None)  # killed after the last rename
    assert run(target) is True
    monkeypatch.undo()
    assert (hidden(target) / "commit.json").exists()
    if change == "folder removed":
        shutil.rmtree(target)
    elif change == "removed":
        (target / FILES[1]).unlink()
    else:
        (target / FILES[1]).write_text("ne")
    if target.exists():
        with pytest.raises(MscvtError, match="exists and is not empty"):
            run(target)
        assert run(target, overwrite=True) is True
    else:
        target.mkdir()
        assert run(target) is True
    assert tree(target) == NEW
    assert not hidden(target).exists()


def test_a_linked_target_replaces_the_folder_and_keeps_the_link(tmp_path):
    make(tmp_path / "disk" / "real", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    first = begin(tmp_path / "disk" / "real", overwrite=True)
    with pytest.raises(MscvtError, match="another run is writing"):
        begin(tmp_path / "link", overwrite=True)
    (first.data / "begun").unlink()
    first.close()
    assert run(tmp_path / "link", overwrite=True) is True
    assert (tmp_path / "link").is_symlink()
    assert tree(tmp_path / "disk" / "real") == NEW
    assert sorted(p.name for p in tmp_path.rglob(".*")) == []


@pytest.mark.parametrize("spelling", ["out", "./out/", "../here/out", "out//"])
def test_every_spelling_of_a_target_is_the_same_target(spelling, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first = begin(tmp_path / "here" / "out")
    with pytest.raises(MscvtError, match="another run is writing"):
        begin(spelling)
    (first.data / "begun").unlink()
    first.close()
    assert run(spelling) is True
    assert tree(tmp_path / "here" / "out") == NEW


def test_an_empty_folder_is_a_free_target(tmp_path):
    (tmp_path / "out").mkdir()
    assert run(tmp_path / "out") is True
    assert tree(tmp_path / "out") == NEW


def test_a_target_that_somebody_fills_meanwhile_is_left_alone_and_the_work_kept(tmp_path):
    target = tmp_path / "out"
    staging = begin(target)
    write(staging, FILES)
    make(target, {"notes.txt": "mine"})
    with pytest.raises(MscvtError, match="exists and is not empty"):
        staging.complete(FILES, lambda folder: None, overwrite=False)
    staging.close()
    assert tree(target) == {"notes.txt": "mine"}
    assert (staging.data / "begun").exists()
    shutil.rmtree(target)
    again = begin(target)
    assert again.records == {}
    assert again.complete(FILES, lambda folder: None, overwrite=False) is True
    again.close()
    assert tree(target) == {"begun": "", **dict.fromkeys(FILES, "new")}
