"""Damaged zip files and pickles of `torch.save`: read right, or refused at once by name, however they lie."""

import io
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.formats.torch_zip.reader import load, tensors_in
from mscvt.tensors.computing import values_of

FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WEIGHTS = {
    "a": torch.arange(15, dtype=torch.float32).reshape(3, 5).to(torch.bfloat16),
    "b": torch.arange(100, 107, dtype=torch.float32),
}


def save(path, state, **options):
    torch.save(state, path, **options)
    return path


def with_pickle(path, data, *, names=("data.pkl",), order=b"little", **options):
    """A file of torch.save's form around the bytes of a pickle."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name in names:
            archive.writestr(f"archive/{name}", data)
        archive.writestr("archive/byteorder", order)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", bytes(range(24)))
    return path


INERT = {
    "bytearray": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "bytearray_of_a_terabyte": b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
    "tensor_class": b"\x80\x02ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R.",
    "sparse": b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n)R.",
    "frame_beyond_end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    "memo_of_4_billion": b"\x80\x02}r\xff\xff\xff\xff0j\xff\xff\xff\xff.",
}


@pytest.mark.parametrize("name", INERT)
def test_pickle_that_would_take_memory_takes_none(name, tmp_path):
    path = with_pickle(tmp_path / "x.pt", INERT[name])
    tracemalloc.start()
    value = load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert value == {} or value.kind.rpartition(".")[2] in ("bytearray", "FloatTensor", "_rebuild_sparse_tensor")
    if value != {}:
        with pytest.raises(MscvtError, match=r"expected a dict of tensors"):
            list(tensors_in(path, 0, value, "the file"))


BOMBS = {
    "tuples_nested_deep": b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s.",
    "tuples_nested_by_marks": b"\x80\x02}" + b"(" * 500_000 + b"t" * 500_000 + b"K\x01s.",
    "stack_underflow": b"\x80\x02\x86\x86\x86.",
    "mark_missing": b"\x80\x02tttt.",
    "memo_missing": b"\x80\x02h\x05.",
    "no_stop": b"\x80\x02}",
    "empty": b"",
    "unknown_opcode": b"\x80\x02\xfe.",
    "string_beyond_end": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "global_not_ascii": b"\x80\x02c\xff\xfe\nx\n.",
    "persistent_id": b"\x80\x02K\x01Q.",
    "persistent_tuple": b"\x80\x02X\x07\x00\x00\x00storageK\x01K\x02\x87Q.",
    "extension": b"\x80\x02\x82\x01.",
    "text_instance": b"(ios\nsystem\n.",
    "no_opcodes": b"\x80\x02" + b"N0" * 10_000_000 + b"}.",
    "empty_dicts": b"\x80\x02(" + b"}" * 20_000_000 + b"t.",
    "empty_objects": b"\x80\x02ca\nb\nq\x00](" + b"h\x00)\x81" * 2_000_000 + b"e.",
    "tuple_that_doubles_as_key": b"\x80\x02}K\x01\x85" + b"q\x09h\x09\x86" * 60 + b"Ns.",
    "tuple_that_doubles_in_a_set": b"\x80\x04\x8f(K\x01\x85" + b"\x94h\x00\x86" + b"q\x09h\x09\x86" * 60 + b"\x90.",
    "tuple_that_doubles_in_a_frozenset": b"\x80\x04(K\x01\x85" + b"q\x09h\x09\x86" * 60 + b"\x91.",
    "tuple_that_doubles_as_old_key": b"(K\x01\x85" + b"q\x09h\x09\x86" * 60 + b"Nd.",
    "tuple_that_doubles_in_a_call": b"\x80\x02c__builtin__\nset\n]K\x01\x85" + b"q\x09h\x09\x86" * 60 + b"a\x85R.",
    "tuple_that_doubles_as_pair": b"\x80\x02ccollections\nOrderedDict\n]K\x01\x85"
    + b"q\x09h\x09\x86" * 60
    + b"N\x86a\x85R.",
    "keys_of_one_hash": b"\x80\x02}("
    + b"".join(b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little", signed=True) + b"N" for k in range(1, 90_000))
    + b"u.",
    "tuples_of_one_hash": b"\x80\x02}("
    + b"".join(b"J" + struct.pack("<i", k) + b"\x85N" for k in range(90_000))
    + b"u.",
    "keys_that_are_long": b"\x80\x02}(" + b"X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"Nu.",
    "encoded_to_hex": b"\x80\x02c_codecs\nencode\nq\x00X\x02\x00\x00\x00aaX\x03\x00\x00\x00hex\x86R.",
    "encoded_again_and_again": b"\x80\x02c_codecs\nencode\nq\x00X\x00\x00\x10\x00"
    + b"a" * (1 << 20)
    + b"q\x01X\x06\x00\x00\x00latin1q\x02]("
    + b"h\x00h\x01h\x02\x86R" * 4000
    + b"e.",
    "list_copied_again_and_again": b"\x80\x02c__builtin__\nset\nq\x00]("
    + b"K\x01" * 100_000
    + b"eq\x01\x85q\x02]("
    + b"h\x00h\x02R" * 100_000
    + b"e.",
    "number_of_a_million_digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "number_of_a_million_bytes": b"\x80\x02\x8b@B\x0f\x00" + b"\x7f" * 1_000_000 + b".",
    "memo_number_of_a_million_digits": b"}p" + b"9" * 1_000_000 + b"\n.",
    "bytearray_beyond_end": b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00abc.",
    "bytes_beyond_end": b"\x80\x05\x8e\x00\x00\x00\x00\x00\x01\x00\x00abc.",
    "buffer_from_outside": b"\x80\x05\x97.",
    "name_of_a_million_letters": b"\x80\x02c" + b"a" * 1_000_000 + b"\nb\n.",
    "calls_nested": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00"
    + b"(h\x00h\x00" * 2000
    + b")"
    + b"Nt" * 2000
    + b"R.",
    "call_of_a_value": b"\x80\x02K\x05)R.",
    "call_with_a_list": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "attributes_of_a_name": b"\x80\x02ccollections\nOrderedDict\n}b.",
    "attributes_of_a_list": b"\x80\x02]}b.",
    "items_of_a_list": b"\x80\x02]K\x01K\x02s.",
    "items_of_a_name": b"\x80\x02ccollections\nOrderedDict\nK\x01a.",
    "added_to_a_dict": b"\x80\x04}(K\x01\x90.",
}


BOUNDS = {
    "tuples_nested": "made to use up memory",
    "no_opcodes": "made to use up memory",
    "empty_": "made to use up memory",
    "tuples_of_one_hash": "made to use up memory",
    "list_copied": "made to use up memory",
    "tuple_that_doubles": "no short plain value: tuple",
    "keys_of_one_hash": "no short plain value: int",
    "keys_that_are_long": "no short plain value: str",
    "encoded_to_hex": "_codecs.encode with 'hex'",
    "encoded_again": "copies the same bytes again and again",
    "number_of_a_million_digits": "a number of 1,000,001 digits",
    "memo_number_of_a_million_digits": "a number of 1,000,000 digits",
    "number_of_a_million_bytes": "a number of 1,000,000 bytes",
    "name_of_a_million_letters": "a name that is too long",
    "calls_nested": "RecursionError",
    "unknown_opcode": "there is no opcode b'\\xfe'",
}
"""Beginning of a name -> what the error says, where a bound is meant and not damage."""


@pytest.mark.parametrize("name", BOMBS)
def test_pickle_that_would_blow_up_is_refused_at_once(name, tmp_path):
    path = with_pickle(tmp_path / "x.pt", BOMBS[name])
    began = time.process_time()
    with pytest.raises(MscvtError, match=r"x\.pt") as caught:
        load(path)
    assert next((said for beginning, said in BOUNDS.items() if name.startswith(beginning)), "") in str(caught.value)
    assert time.process_time() - began < 10


STORAGE = b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ"


def rebuilt(numel=6, offset=0, size=(2, 3), stride=(3, 1)):
    """The pickle of a dict with one float32 tensor, whose numbers nobody checked."""

    def number(value):
        return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + STORAGE % number(numel)
    arguments = (
        b"(" + storage + number(offset) + numbers(size) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)Rt"
    )
    return b"\x80\x02}X\x01\x00\x00\x00a" + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


NUMBERS = {
    "storage_larger_than_record": {"numel": 1000, "size": (10, 100), "stride": (100, 1)},
    "storage_of_2_to_62": {"numel": 2**62, "size": (2**62,), "stride": (1,)},
    "storage_of_2_to_70": {"numel": 2**70},
    "size_beyond_storage": {"size": (20, 3)},
    "size_of_2_to_62": {"size": (2**31, 2**31), "stride": (2**31, 1)},
    "size_of_2_to_70": {"size": (2**70, 1)},
    "size_negative": {"size": (-2, 3)},
    "offset_beyond_storage": {"offset": 100},
    "offset_negative": {"offset": -1},
    "offset_of_2_to_62": {"offset": 2**62},
    "stride_huge": {"stride": (2**40, 1)},
    "stride_zero": {"stride": (0, 0)},
    "stride_transposed": {"stride": (1, 2)},
    "stride_of_other_length": {"stride": (3,)},
}


@pytest.mark.parametrize("name", NUMBERS)
def test_absurd_numbers_in_the_pickle_are_refused(name, tmp_path):
    path = with_pickle(tmp_path / "x.pt", rebuilt(**NUMBERS[name]))
    with pytest.raises(MscvtError, match=r"x\.pt"):
        list(tensors_in(path, 0, load(path), "the file"))


def test_handmade_pickle_is_read_where_its_numbers_are_right(tmp_path):
    path = with_pickle(tmp_path / "x.pt", rebuilt())
    ((name, info),) = tensors_in(path, 0, load(path), "the file")
    assert (name, info.shape) == ("a", (2, 3))
    assert path.read_bytes()[info.offset : info.offset + info.nbytes] == bytes(range(24))


def corrupted_zip(path):
    content = bytearray(save(path, WEIGHTS).read_bytes())
    for place in (content.rindex(b"PK\x06\x06") + 48, content.rindex(b"PK\x05\x06") + 16):
        content[place : place + 4] = struct.pack("<I", 16)
    path.write_bytes(content)


ARCHIVES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
    "legacy": lambda path: save(path, WEIGHTS, _use_new_zipfile_serialization=False),
    "plain_pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "truncated": lambda path: path.write_bytes(save(path, WEIGHTS).read_bytes()[:-30]),
    "beginning_missing": lambda path: path.write_bytes(save(path, WEIGHTS).read_bytes()[64:]),
    "prefixed": lambda path: path.write_bytes(b"#!/bin/sh\n" + save(path, WEIGHTS).read_bytes()),
    "directory_offset_lies": corrupted_zip,
    "compressed": lambda path: with_pickle(path, rebuilt(), compression=zipfile.ZIP_DEFLATED),
    "bomb": lambda path: with_pickle(path, b"\0" * 50_000_000, compression=zipfile.ZIP_DEFLATED),
    "bzip2_bomb": lambda path: with_pickle(path, b"\0" * 10_000_000, compression=zipfile.ZIP_BZIP2),
    "no_pickle": lambda path: with_pickle(path, b"", names=("data.txt",)),
    "two_pickles": lambda path: with_pickle(path, rebuilt(), names=("data.pkl", "deeper/data.pkl")),
    "names_differ_in_case": lambda path: with_pickle(path, rebuilt(), names=("data.pkl", "DATA.pkl")),
    "big_endian": lambda path: with_pickle(path, rebuilt(), order=b"big"),
    "byte_order_unknown": lambda path: with_pickle(path, rebuilt(), order=b"pdp11"),
    "torchscript": lambda path: with_pickle(path, rebuilt(), names=("data.pkl", "constants.pkl")),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_that_torch_did_not_write_is_refused(name, tmp_path):
    path = tmp_path / "x.pt"
    ARCHIVES[name](path)
    with pytest.raises(MscvtError, match=r"x\.pt"):
        load(path)


SAVED = io.BytesIO()
torch.save(OrderedDict(WEIGHTS), SAVED)


@settings(FUZZ, max_examples=300)
@given(edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4), end=st.integers(0, 9))
def test_damaged_archive_is_read_or_refused(edits, end, tmp_path):
    content = bytearray(SAVED.getvalue())
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    read_or_refuse(tmp_path, bytes(content[: len(content) - (end - 6 if end > 6 else 0)]))


with zipfile.ZipFile(SAVED) as _archive:
    PICKLE = next(_archive.read(name) for name in _archive.namelist() if name.endswith("data.pkl"))
OPCODES = st.sampled_from([bytes([code]) for code in b"().}]0124NRQbcehjqrstuX\x80\x81\x85\x86\x87\x88\x89\x8a\x8fKMJ"])


@settings(FUZZ, max_examples=500)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(PICKLE) - 1), OPCODES | st.binary(max_size=3)), min_size=1, max_size=5)
)
def test_damaged_pickle_is_read_or_refused(edits, tmp_path):
    content = bytearray(PICKLE)
    for place, new in edits:
        content[place : place + len(new)] = new
    read_or_refuse(tmp_path, with_pickle(tmp_path / "x.zip", bytes(content)).read_bytes())


def read_or_refuse(folder, content):
    """Read every tensor, unless the file is refused by name; any other error is one of the test."""
    (folder / "pytorch_model.bin").write_bytes(content)
    try:
        source = HuggingFaceSource(folder)
    except MscvtError as error:
        if "pytorch_model.bin" not in str(error):
            raise
        return
    for name, info in source.tensors.items():
        assert values_of(source.tensor(name), 0, (info.numel,), (1,)).numel() == info.numel
