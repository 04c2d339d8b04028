"""safetensors files and indexes that nobody vouches for: read right, or refused with the file's name."""

import json
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.formats.huggingface.safetensors_header import read_header
from mscvt.tensors.computing import values_of

FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FIVE = np.arange(5, dtype="<u2").tobytes()
SIX = np.arange(100, 106, dtype="<u4").tobytes()
ENTRY_A = {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}
ENTRY_B = {"dtype": "F32", "shape": [2, 3], "data_offsets": [10, 34]}
VALID = {"a": ENTRY_A, "b": ENTRY_B}


def raw(header, data=FIVE + SIX, *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write(folder, content, name="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


def read_elements(source, name):
    info = source.tensors[name]
    strides = tuple(int(np.prod(info.shape[axis + 1 :])) for axis in range(len(info.shape)))
    region = values_of(source.tensor(name), 0, info.shape, strides)
    return region.reshape(-1).view(torch.uint8).numpy().tobytes()


def padded_to(remainder):
    """A valid header whose tensors begin at so many bytes after a multiple of 8."""
    text = json.dumps(VALID).encode()
    return text + b" " * ((remainder - len(text)) % 8)


LIES = {
    "empty_file": b"",
    "seven_bytes": b"\0" * 7,
    "length_only": struct.pack("<Q", 2),
    "length_beyond_file": raw(VALID, length=10**6),
    "length_of_2_to_63": raw(VALID, length=2**63),
    "length_of_2_to_64_less_1": raw(VALID, length=2**64 - 1),
    "length_too_short": raw(VALID, length=20),
    "no_json": raw(b"{]"),
    "empty_header": raw(b"", b""),
    "array": raw(b"[]", b""),
    "number": raw(b"1", b""),
    "not_utf8": raw(b'{"\xff": 1}'),
    "utf16": raw(json.dumps(VALID).encode("utf-16")),
    "nested_deep": raw(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "arrays_nested_deep": raw(b"[" * 500_000),
    "integer_of_many_digits": raw(b'{"a":' + b"1" * 10_000 + b"}"),
    "name_twice": raw(b'{"a":%s,"a":%s}' % (json.dumps(ENTRY_A).encode(), json.dumps(ENTRY_A).encode()), FIVE),
    "field_twice": raw(b'{"a":{"dtype":"U8","dtype":"BF16","shape":[5],"data_offsets":[0,10]}}', FIVE),
    "objects_by_the_million": raw(b'{"a":[' + b"{}," * (1 << 21) + b"{}]}"),
    "lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1000\n",
    "name_with_control_characters": raw({"\x1b[2Ja": ENTRY_A}, FIVE),
    "name_with_lone_surrogate": raw(b'{"\\ud800":{"dtype":"BF16","shape":[5],"data_offsets":[0,10]}}', FIVE),
    "entry_is_list": raw({"a": []}),
    "entry_is_null": raw({"a": None}),
    "entry_is_empty": raw({"a": {}}),
    "truncated_by_a_byte": raw(VALID)[:-1],
    "longer_by_a_byte": raw(VALID) + b"\0",
    "hole_between": raw({"a": ENTRY_A, "b": ENTRY_B | {"data_offsets": [12, 36]}}, FIVE + b"\0\0" + SIX),
    "hole_before": raw({"b": ENTRY_B}),
    "overlap": raw({"a": ENTRY_A, "b": ENTRY_B | {"data_offsets": [8, 32]}}),
    "same_bytes_twice": raw({"a": ENTRY_A, "b": ENTRY_A}, FIVE),
} | {
    f"{field}_is_{shown}": raw({"a": ENTRY_A | {field: value}}, FIVE)
    for field, shown, value in (
        ("dtype", "unknown", "BF17"),
        ("dtype", "number", 5),
        ("dtype", "null", None),
        ("dtype", "list", ["BF16"]),
        ("dtype", "of_another_size", "F32"),
        ("shape", "number", 5),
        ("shape", "negative", [-5]),
        ("shape", "negative_twice", [-5, -1]),
        ("shape", "boolean", [True, 5]),
        ("shape", "float", [5.0]),
        ("shape", "text", "5"),
        ("shape", "huge", [2**62, 2**62]),
        ("shape", "larger_than_64_bits", [2**70]),
        ("shape", "of_100_dimensions", [1] * 99 + [5]),
        ("shape", "too_small", [4]),
        ("shape", "null", None),
        ("data_offsets", "reversed", [10, 0]),
        ("data_offsets", "negative", [-10, 0]),
        ("data_offsets", "one", [0]),
        ("data_offsets", "three", [0, 10, 10]),
        ("data_offsets", "beyond_file", [10, 20]),
        ("data_offsets", "boolean", [False, 10]),
        ("data_offsets", "huge", [2**63, 2**63 + 10]),
        ("data_offsets", "text", "01"),
    )
}


@pytest.mark.parametrize("name", LIES)
def test_lying_header_is_refused_with_file_name(name, tmp_path):
    folder = write(tmp_path / "hf", LIES[name])
    with pytest.raises(MscvtError, match=r"model\.safetensors"):
        HuggingFaceSource(folder)


@pytest.mark.parametrize("remainder", range(8))
def test_tensors_are_exact_at_every_alignment(remainder, tmp_path):
    source = HuggingFaceSource(write(tmp_path / "hf", raw(padded_to(remainder))))
    assert source.tensors["b"].offset % 4 == (remainder + 10) % 4
    assert read_elements(source, "a") == FIVE
    assert read_elements(source, "b") == SIX


def test_bits_of_every_nan_are_kept(tmp_path):
    bits = np.array([0x7F81, 0xFF81, 0x7FC0, 0xFFFF, 0x7F80, 0x0001], dtype="<u2")  # signalling, quiet, inf, denormal
    wide = np.array([0x7F800001, 0xFFBFFFFF, 0x7FC00000], dtype="<u4")
    header = {
        "a": {"dtype": "BF16", "shape": [6], "data_offsets": [0, 12]},
        "b": {"dtype": "F32", "shape": [3], "data_offsets": [12, 24]},
    }
    source = HuggingFaceSource(write(tmp_path / "hf", raw(header, bits.tobytes() + wide.tobytes())))
    assert read_elements(source, "a") == bits.tobytes()
    assert read_elements(source, "b") == wide.tobytes()


def test_tensors_without_elements_and_of_no_dimension_are_read(tmp_path):
    header = {
        "none": {"dtype": "F32", "shape": [0, 7], "data_offsets": [0, 0]},
        "one": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]},
        "end": {"dtype": "F64", "shape": [3, 0], "data_offsets": [2, 2]},
        "__metadata__": {"format": "pt"},
    }
    source = HuggingFaceSource(write(tmp_path / "hf", raw(header, b"\x34\x12")))
    assert {name: info.shape for name, info in source.tensors.items()} == {"none": (0, 7), "one": (), "end": (3, 0)}
    assert read_elements(source, "one") == b"\x34\x12"
    assert read_elements(source, "none") == read_elements(source, "end") == b""


def test_header_longer_than_the_limit_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 200_000_000))
        file.truncate(300_000_000)
    began = time.thread_time()
    with pytest.raises(MscvtError, match="claims 200000000 bytes"):
        read_header(path, 0)
    assert time.thread_time() - began < 1


def test_file_that_shrank_after_its_header_was_read_is_an_error(tmp_path):
    source = HuggingFaceSource(write(tmp_path / "hf", raw(VALID)))
    os.truncate(tmp_path / "hf" / "model.safetensors", 50)
    with pytest.raises(MscvtError, match=r"model\.safetensors"):
        read_elements(source, "b")


def damaged(valid):
    """Bytes of a valid file, a few of them changed, taken out, doubled, or cut off."""
    edit = st.tuples(
        st.integers(0, len(valid) - 1), st.sampled_from(["change", "cut", "double"]), st.binary(max_size=4)
    )

    def apply(edits):
        content = bytearray(valid)
        for place, how, new in edits:
            at = min(place, max(len(content) - 1, 0))
            end = at if how == "double" else at + (len(new) if how == "change" else 3)
            content[at:end] = new if how != "cut" else b""
        return bytes(content)

    return st.lists(edit, min_size=1, max_size=3).map(apply)


def open_or_refuse(folder):
    """The opened file, or None where it was refused by name; any other error is one of the test."""
    try:
        return HuggingFaceSource(folder)
    except MscvtError as error:
        if "model.safetensors" not in str(error):
            raise
        return None


@settings(FUZZ, max_examples=400)
@given(content=damaged(raw(VALID)))
def test_damaged_file_is_read_or_refused(content, tmp_path):
    source = open_or_refuse(write(tmp_path / "hf", content))
    if source is not None:
        assert all(len(read_elements(source, name)) == info.nbytes for name, info in source.tensors.items())


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["BF16", 0, 10, 34]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a", "b"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(FUZZ, max_examples=300)
@given(value=JSON_VALUES, place=st.sampled_from(["whole", "a", "dtype", "shape", "data_offsets"]))
def test_header_of_wrong_types_is_read_or_refused(value, place, tmp_path):
    header = {"whole": value, "a": {"a": value}}.get(place, {"a": ENTRY_A | {place: value}})
    source = open_or_refuse(write(tmp_path / "hf", raw(header, FIVE)))
    assert source is None or source.tensors.keys() <= header.keys()


def test_huge_header_of_a_small_file_costs_no_memory(tmp_path):
    folder = write(tmp_path / "hf", raw(VALID, length=10**15))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from mscvt.formats.huggingface.safetensors_header import read_header\n"
        "from mscvt.errors import MscvtError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_header(Path(sys.argv[1]), 0)\n"
        "except MscvtError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, str(folder / "model.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 4096  # KiB
