"""Zip files whose directory and headers contradict each other or the pickle: refused, never read from elsewhere."""

import io
import zipfile

import pytest
import torch
from torch_archives import EXPECTED, SAVED, File, read

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.reader import load, tensors_in


def entry(name, at, layout, *values):
    return lambda file: file.put(file.entries[name] + at, layout, *values)


def header(name, at, layout, *values):
    return lambda file: file.put(file.headers[name] + at, layout, *values)


def swap_offsets(file):
    one, two = (file.entries[f"data/{number}"] + 42 for number in (0, 1))
    first, second = file.get(one, "<I"), file.get(two, "<I")
    file.put(one, "<I", *second)
    file.put(two, "<I", *first)


def swap_names_in_directory(file):
    file.put(file.entries["data/0"] + 46, "15s", b"archive/data/1")
    file.put(file.entries["data/1"] + 46, "15s", b"archive/data/0")


def same_offset(file):
    file.put(file.entries["data/1"] + 42, "<I", file.headers["data/0"])


def longer_extra(file):
    """A header that moves its data 64 bytes back, into what lies behind it."""
    at = file.headers["data/0"] + 28
    file.put(at, "<H", file.get(at, "<H")[0] + 64)


def longer_extra_where_there_is_room(file):
    at = file.headers["none"] if "none" in file.headers else file.headers["data/3"]
    file.put(at + 28, "<H", 60_000)


def grow(file):
    """A record that says everywhere that it reaches into the next one."""
    file.put(file.entries["data/0"] + 20, "<2I", 200, 200)


def offset_of_64_bits_is_missing(file):
    file.put(file.entries["data/0"] + 42, "<I", 0xFFFFFFFF)


DAMAGED = {
    "offsets_swapped": swap_offsets,
    "names_swapped_in_directory": swap_names_in_directory,
    "two_records_at_one_place": same_offset,
    "record_moved_by_its_header": longer_extra,
    "record_moved_out_of_the_file": longer_extra_where_there_is_room,
    "record_reaches_into_the_next": grow,
    "offset_of_64_bits_is_missing": offset_of_64_bits_is_missing,
    "offset_beyond_directory": entry("data/0", 42, "<I", 1 << 30),
    "offset_inside_a_record": entry("data/1", 42, "<I", 200),
    "size_in_directory_alone": entry("data/0", 24, "<I", 56),
    "sizes_in_directory_smaller": entry("data/0", 20, "<2I", 56, 56),
    "compressed_by_directory": entry("data/0", 10, "<H", 8),
    "encrypted_by_directory": entry("data/0", 8, "<H", 0x809),
    "size_of_a_record_that_holds_no_tensor": entry("version", 20, "<2I", 5000, 5000),
    "on_another_disk": entry("data/0", 34, "<H", 1),
    "signature_of_entry": entry("data/0", 0, "4s", b"PK\1\3"),
    "name_in_directory_longer": entry("data/0", 28, "<H", 20),
    "comment_in_directory": entry("version", 32, "<H", 30_000),
    "name_in_directory_twice": entry("data/1", 46, "14s", b"archive/data/0"),
    "name_in_directory_differs": entry("data/1", 46, "14s", b"archive/data/9"),
    "name_in_directory_not_utf8": entry("data/1", 46, "14s", b"archive/data/\xff"),
    "compressed_by_header": header("data/0", 8, "<H", 8),
    "encrypted_by_header": header("data/0", 6, "<H", 0x809),
    "size_in_header": header("data/0", 18, "<2I", 56, 56),
    "stored_size_in_header": header("data/0", 18, "<I", 56),
    "size_of_64_bits_in_header_is_missing": header("data/0", 18, "<2I", 0xFFFFFFFF, 0xFFFFFFFF),
    "size_not_in_header_nor_behind": header("data/0", 6, "<H", 0x800),
    "signature_of_header": header("data/0", 0, "4s", b"PK\3\5"),
    "name_in_header": header("data/0", 30, "14s", b"archive/data/1"),
    "name_in_header_shorter": header("data/0", 26, "<H", 13),
    "pickle_moved_by_its_header": header("data.pkl", 28, "<H", 30),
    "byte_order": lambda file: file.put(file.content.index(b"little"), "6s", b"middle"),
    "count_of_entries": lambda file: file.put(file.end64 + 24, "<2Q", 8, 8),
    "size_of_directory": lambda file: file.put(file.end64 + 40, "<Q", 100),
    "offset_of_directory": lambda file: file.put(file.end64 + 48, "<Q", file.directory - 46),
    "disk_of_directory": lambda file: file.put(file.end64 + 16, "<2I", 1, 1),
    "end_records_differ": lambda file: file.put(len(file.content) - 6, "<I", file.directory + 1),
    "locator_elsewhere": lambda file: file.put(len(file.content) - 42 + 8, "<Q", file.end64 - 46),
    "comment": lambda file: file.put(len(file.content) - 2, "<H", 1),
    "second_end_record": lambda file: file.content.extend(file.content[-22:]),
    "prefixed": lambda file: file.content.__setitem__(slice(0, 0), b"#!/bin/sh\n"),
    "something_between_records_and_directory": lambda file: file.content.__setitem__(
        slice(file.directory, file.directory), b"x"
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_contradiction_is_refused(name, tmp_path):
    file, path = File(), tmp_path / "x.pt"
    path.write_bytes(file.content)
    assert read(path) == EXPECTED
    DAMAGED[name](file)
    path.write_bytes(file.content)
    assert bytes(file.content) != SAVED
    with pytest.raises(MscvtError, match=r"x\.pt: "):
        load(path)


MISSING = ["data.pkl", "data/0"]


@pytest.mark.parametrize("missing", MISSING)
def test_missing_record_is_refused(missing, tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(io.BytesIO(SAVED)) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.infolist():
            if item.filename != f"archive/{missing}":
                new.writestr(item.filename, old.read(item))
    with pytest.raises(MscvtError, match=rf"x\.pt: has (0 records |no record '){missing}"):
        load(path)


@pytest.mark.parametrize("size", [0, 56, 64, 61])
def test_record_of_another_size_than_the_pickle_says_is_refused(size, tmp_path):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(io.BytesIO(SAVED)) as old, zipfile.ZipFile(path, "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, bytes(size) if item.filename == "archive/data/0" else old.read(item))
    with pytest.raises(MscvtError, match=rf"x\.pt: its record 'archive/data/0' has {size} bytes, .* 15 elements of 4"):
        load(path)


def test_names_from_a_file_are_shown_escaped(tmp_path):
    path, evil = tmp_path / "x.pt", "\x1b]0;owned\x07"
    said = []
    for name in (f"archive/{evil}", f"archive/{evil}/data.pkl"):
        with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, b"x" * 100)
        with pytest.raises(MscvtError) as caught:
            load(path)
        said.append(str(caught.value))
    for state in ({evil: 1}, {"a": {evil: 1}}, {f"{evil}weight": 5}):
        torch.save(state, path)
        with pytest.raises(MscvtError) as caught:
            list(tensors_in(path, 0, load(path), "the file"))
        said.append(str(caught.value))
    for pickled in (
        b"\x80\x02c" + evil.encode() + b"\nb\n.",
        b"\x80\x02cos\n" + evil.encode() + b"\n.",
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x0b\x00\x00\x00"
        + evil.encode().ljust(11)
        + b"X\x00\x00\x00\x00K\x01tQ.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x0b\x00\x00\x00" + evil.encode().ljust(11) + b"\x86R.",
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
        with pytest.raises(MscvtError) as caught:
            list(tensors_in(path, 0, load(path), "the file"))
        said.append(str(caught.value))
    assert all(text.isprintable() and "x.pt" in text for text in said)
    assert sum("owned" in text for text in said) >= 8


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), OverflowError("x"), UnicodeError("\x1b[2J")])
def test_whatever_goes_wrong_is_an_error_that_names_the_file(error, tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    path.write_bytes(SAVED)

    def fail(*_args):
        raise error

    monkeypatch.setattr("mscvt.formats.torch_zip.reader.unpickle", fail)
    with pytest.raises(MscvtError, match=r"x\.pt: ") as caught:
        load(path)
    assert str(caught.value).isprintable()
