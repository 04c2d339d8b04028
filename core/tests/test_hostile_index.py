"""Index files that nobody vouches for: no name in them leads out of the folder, and nothing hangs."""

import json
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.tensors.computing import values_of

FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
A, B = torch.arange(5, dtype=torch.bfloat16), torch.arange(100.0, 106.0).reshape(2, 3)
ONLY_A, BOTH = save({"a": A}), save({"a": A, "b": B})


def write(folder, content, name="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


def indexed(folder, weight_map, files):
    for name, content in files.items():
        write(folder, content, name)
    text = weight_map if isinstance(weight_map, bytes) else json.dumps({"weight_map": weight_map}).encode()
    write(folder, text, "model.safetensors.index.json")
    return folder


ESCAPES = ("../outside.safetensors", "/etc/passwd", "sub/../../outside.safetensors")
NO_FILES = ("", ".", "..", "a\0b", "sub", "\ud800.safetensors", "missing.safetensors", "x" * 300)
NO_WEIGHTS = ("loop.safetensors", "pipe.safetensors", "model.pickle")


@pytest.mark.parametrize("name", [*ESCAPES, *NO_FILES, *NO_WEIGHTS])
def test_index_entry_that_is_no_file_of_the_folder_is_refused(name, tmp_path):
    folder = tmp_path / "hf"
    (folder / "sub").mkdir(parents=True)
    write(tmp_path, ONLY_A, "outside.safetensors")
    write(folder, ONLY_A, "model.pickle")
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    os.mkfifo(folder / "pipe.safetensors")
    indexed(folder, {"a": name}, {})
    with pytest.raises(MscvtError) as caught:
        HuggingFaceSource(folder)
    assert "index.json" in str(caught.value) or str(folder) in str(caught.value)


NO_INDEX = {
    "empty": b"",
    "list": b"[]",
    "object": b"{}",
    "map_is_list": b'{"weight_map":[]}',
    "map_is_empty": b'{"weight_map":{}}',
    "map_is_null": b'{"weight_map":null}',
    "file_is_number": b'{"weight_map":{"a":1}}',
    "name_with_control_characters": b'{"weight_map":{"\\u001b[2J":"a.safetensors"}}',
    "not_utf8": b"\xff\xfe",
    "no_json": b"nul",
    "nested_deep": b"[" * 10**6,
    "many_objects": b'{"weight_map":[' + b"{}," * (1 << 21) + b"{}]}",
    "integer_of_many_digits": b'{"weight_map":' + b"9" * 50_000 + b"}",
    "name_twice": b'{"weight_map":{"a":"a.safetensors","a":"a.safetensors"}}',
    "lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1000\n",
}


@pytest.mark.parametrize("text", NO_INDEX.values(), ids=NO_INDEX)
def test_index_that_is_no_index_is_refused_by_name(text, tmp_path):
    with pytest.raises(MscvtError, match=r"model\.safetensors\.index\.json"):
        HuggingFaceSource(indexed(tmp_path / "hf", text, {"a.safetensors": ONLY_A}))


def test_every_contradiction_of_index_and_files_is_listed(tmp_path):
    weight_map = {"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"}
    extra = save({"b": B, "d": A})
    with pytest.raises(MscvtError) as caught:
        HuggingFaceSource(indexed(tmp_path / "hf", weight_map, {"1.safetensors": ONLY_A, "2.safetensors": extra}))
    assert [fault.partition(" ")[0] for fault in caught.value.faults] == ["a", "b", "c", "d"]


def test_tensor_in_two_files_is_refused_with_both_names(tmp_path):
    weight_map = {"a": "1.safetensors", "b": "2.safetensors"}
    files = {"1.safetensors": ONLY_A, "2.safetensors": BOTH}
    with pytest.raises(MscvtError, match=r"'a' is in two files, 1\.safetensors and 2\.safetensors"):
        HuggingFaceSource(indexed(tmp_path / "hf", weight_map, files))


@pytest.mark.parametrize("what", ["dangling", "loop", "pipe", "folder", "nothing", "index_is_loop"])
def test_single_file_that_is_no_file_of_the_folder_is_refused(what, tmp_path):
    folder, path = tmp_path / "hf", tmp_path / "hf" / "model.safetensors"
    write(tmp_path, ONLY_A, "outside.safetensors")
    folder.mkdir()
    match what:
        case "dangling":
            path.symlink_to("../absent.safetensors")
        case "loop":
            path.symlink_to("model.safetensors")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "index_is_loop":
            (folder / "model.safetensors.index.json").symlink_to("model.safetensors.index.json")
    with pytest.raises(MscvtError, match=str(folder)):
        HuggingFaceSource(folder)


def test_links_of_the_hugging_face_cache_are_followed(tmp_path):
    write(tmp_path / "blobs", BOTH, "0123abcd")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/0123abcd")
    elements = values_of(HuggingFaceSource(snapshot).tensor("b"), 0, (2, 3), (3, 1))
    assert torch.equal(elements, B)


def test_links_to_another_disk_are_followed(tmp_path):
    write(tmp_path / "disk", BOTH, "part.safetensors")
    folder = indexed(tmp_path / "hf", {"a": "part.safetensors", "b": "part.safetensors"}, {})
    (folder / "part.safetensors").symlink_to(tmp_path / "disk" / "part.safetensors")
    (tmp_path / "link").symlink_to(folder)
    elements = values_of(HuggingFaceSource(tmp_path / "link").tensor("b"), 0, (2, 3), (3, 1))
    assert torch.equal(elements, B)


def test_link_that_leads_nowhere_is_named_with_where_it_leads(tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to("/mnt/gone/model.safetensors")
    with pytest.raises(MscvtError, match=r"is a link to /mnt/gone/model\.safetensors, which does not exist") as caught:
        HuggingFaceSource(folder)
    assert "disk" in caught.value.hint


def test_entries_that_no_file_holds_are_noted(tmp_path):
    weight_map = {"a": "1.safetensors", "a_scale_inv": "1.safetensors", "z_scale_inv": "1.safetensors"}
    source = HuggingFaceSource(indexed(tmp_path / "hf", weight_map, {"1.safetensors": ONLY_A}))
    assert list(source.tensors) == ["a"]
    assert source.notes == ("the index has entries that no file holds (2), for example a_scale_inv",)


HOSTILE_NAMES = (
    "\x1b[2J\x1b]0;owned\x07.safetensors",
    "x\nhint: run `evil` first\n.safetensors",
    "\u202ecod.safetensors",
)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("is_there", [False, True])
def test_file_names_are_shown_escaped(name, is_there, tmp_path):
    folder = indexed(tmp_path / "hf", {"a": name, "b": name}, {"model.pickle": ONLY_A})
    if is_there:
        write(folder, ONLY_A[:-1], name)
    with pytest.raises(MscvtError) as caught:
        HuggingFaceSource(folder)
    assert "safetensors" in caught.value.message
    assert caught.value.message.isprintable()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["part.safetensors", "a", "..", "/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=4),
    max_leaves=8,
)


@settings(FUZZ, max_examples=200)
@given(weight_map=JSON_VALUES)
def test_index_of_any_values_is_read_or_refused(weight_map, tmp_path):
    folder = indexed(tmp_path / "hf", json.dumps({"weight_map": weight_map}).encode(), {"part.safetensors": BOTH})
    try:
        assert HuggingFaceSource(folder).tensors.keys() <= weight_map.keys()
    except MscvtError as error:
        if str(folder) not in str(error):
            raise
