"""Awkward targets: links, spellings, folders that are taken, records that are damaged."""

import shutil

import pytest

from mscvt.errors import MscvtError
from mscvt.output.staging import Staging
from staged_runs import FILES, NEW, OLD, begin, hidden, make, run, tree


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


def test_a_damaged_record_is_refused_and_discarded_with_overwrite(tmp_path):
    begin(tmp_path / "out").close()
    (hidden(tmp_path / "out") / "conversion.json").write_text('{"what": "on')
    with pytest.raises(MscvtError, match="its record is damaged"):
        run(tmp_path / "out")
    assert (hidden(tmp_path / "out") / "data" / "begun").exists()
    assert run(tmp_path / "out", overwrite=True) is True
    assert tree(tmp_path / "out") == NEW


def test_resume_goes_on_with_unfinished_work(tmp_path):
    staging = begin(tmp_path / "out")
    staging.close()
    with pytest.raises(MscvtError, match="differs from this one in size"):
        run(tmp_path / "out", resume=True)
    again = Staging(tmp_path / "out", {"what": "one", "size": 3})
    again.open(overwrite=False, resume=True, shared=False, files=FILES)
    assert (again.data / "begun").exists()
    again.close()


def test_a_linked_target_replaces_the_folder_and_keeps_the_link(tmp_path):
    make(tmp_path / "disk" / "real", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    first = begin(tmp_path / "disk" / "real", overwrite=True)
    with pytest.raises(MscvtError, match="another run is writing"):
        begin(tmp_path / "link", overwrite=True)
    first.discard(["begun"])
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
    first.discard(["begun"])
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
    staging.mark_whole(FILES)
    make(target, {"notes.txt": "mine"})
    with pytest.raises(MscvtError, match="exists and is not empty"):
        staging.complete(FILES, lambda folder: None, overwrite=False)
    staging.close()
    assert tree(target) == {"notes.txt": "mine"}
    assert (staging.data / "begun").exists()
    shutil.rmtree(target)
    again = begin(target)
    assert again.complete(FILES, lambda folder: None, overwrite=False) is True
    again.close()
    assert tree(target) == {"begun": ""}
