"""Which iteration a folder means, and what a folder is that holds no checkpoint."""

import shutil

import pytest

from mscvt.errors import MscvtError
from mscvt.formats.megatron_torch.folder import find_iteration

TRACKER = "latest_checkpointed_iteration.txt"


def make(folder, *iterations, tracker=None):
    for name in iterations:
        (folder / name / "mp_rank_00").mkdir(parents=True)
    if tracker is not None:
        (folder / TRACKER).write_text(tracker)
    return folder


@pytest.mark.parametrize(
    ("tracker", "wanted", "name"),
    [
        ("500", None, "iter_0000500"),
        ("500\n", None, "iter_0000500"),
        ("7", None, "iter_0000007"),
        ("release", None, "release"),
        ("9", 500, "iter_0000500"),
        (None, 7, "iter_0000007"),
        ("12345678", None, "iter_12345678"),
    ],
)
def test_iteration_is_the_one_wanted_or_tracked(tracker, wanted, name, tmp_path):
    folder = make(tmp_path, "iter_0000007", "iter_0000500", "iter_12345678", "release", tracker=tracker)
    assert find_iteration(folder, wanted) == folder / name


@pytest.mark.parametrize("name", ["iter_0000500", "release", "moved"])
def test_folder_of_one_iteration_is_that_iteration(name, tmp_path):
    make(tmp_path, "iter_0000007", name, tracker="7")
    assert find_iteration(tmp_path / name) == tmp_path / name
    assert find_iteration(tmp_path / "iter_0000007", 7) == tmp_path / "iter_0000007"


def test_folder_of_another_iteration_than_the_one_wanted_is_refused(tmp_path):
    make(tmp_path, "iter_0000007")
    with pytest.raises(MscvtError, match="iter_0000007: is one iteration, and not 500") as caught:
        find_iteration(tmp_path / "iter_0000007", 500)
    assert "folder above it" in caught.value.hint


def test_missing_tracker_is_named_with_the_iterations_that_are_there(tmp_path):
    make(tmp_path, "iter_0000007", "iter_0000500")
    with pytest.raises(MscvtError, match=rf"has no {TRACKER}.*iter_0000007, iter_0000500") as caught:
        find_iteration(tmp_path)
    assert "--iteration" in caught.value.hint


@pytest.mark.parametrize("wanted", [None, 600])
def test_missing_iteration_is_named_with_those_that_are_there(wanted, tmp_path):
    make(tmp_path, "iter_0000007", tracker="600")
    with pytest.raises(MscvtError, match="has no iter_0000600; there is iter_0000007") as caught:
        find_iteration(tmp_path, wanted)
    assert "--iteration" in caught.value.hint


@pytest.mark.parametrize(
    "said", ["", "latest", "-1", "1 2", "\x00", "../../other", "/etc", "1/../../x", "\u0661", "\x1b[2J"]
)
def test_tracker_that_says_no_number_is_refused(said, tmp_path):
    make(tmp_path / "mg", "iter_0000001", tracker=said)
    make(tmp_path / "other", "iter_0000001")
    with pytest.raises(MscvtError, match=rf"{TRACKER}: says '.*', expected a number or 'release'") as caught:
        find_iteration(tmp_path / "mg")
    assert str(caught.value).isprintable()


def test_tracker_that_is_no_text_is_refused(tmp_path):
    make(tmp_path, "iter_0000001")
    (tmp_path / TRACKER).write_bytes(b"\xff\xfe")
    with pytest.raises(MscvtError, match=rf"{TRACKER}: can't be read"):
        find_iteration(tmp_path)


def without_metadata(folder):
    (folder / "__0_0.distcp").write_bytes(b"")


def huggingface(folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")


OTHER = {
    "without_metadata": (without_metadata, r"has \.distcp files and no \.metadata", "copy complete"),
    "huggingface": (huggingface, "is a Hugging Face checkpoint", "swapped"),
    "empty": (lambda folder: None, "is empty", "copy complete"),
    "rank": (lambda folder: (folder / "model_optim_rng.pt").write_bytes(b""), "holds 'model_optim_rng.pt'", "iter_"),
    "control_characters": (lambda folder: (folder / "\x1b[2J").write_bytes(b""), r"holds '\\x1b\[2J'", "iter_"),
}


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("inside", [True, False], ids=["in_an_iteration", "alone"])
def test_other_folders_are_named_as_what_they_are(name, inside, tmp_path):
    build, message, hint = OTHER[name]
    folder = tmp_path / "iter_0000500"
    folder.mkdir()
    build(folder)
    if inside:
        (tmp_path / TRACKER).write_text("500")
    with pytest.raises(MscvtError, match=rf"iter_0000500: .*{message}") as caught:
        find_iteration(tmp_path if inside else folder)
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_refused(name, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MscvtError, match=rf"{name}: no such folder"):
        find_iteration(tmp_path / name)


def test_iteration_on_another_disk_is_followed(tmp_path):
    make(tmp_path / "far", "iter_0000007")
    make(tmp_path / "mg", tracker="7") if (tmp_path / "mg").mkdir() is None else None
    (tmp_path / "mg" / "iter_0000007").symlink_to(tmp_path / "far" / "iter_0000007")
    assert find_iteration(tmp_path / "mg") == tmp_path / "mg" / "iter_0000007"
    shutil.rmtree(tmp_path / "far")
    with pytest.raises(MscvtError, match="has no iter_0000007"):
        find_iteration(tmp_path / "mg")
