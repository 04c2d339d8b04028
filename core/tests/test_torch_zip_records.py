"""Records of a zip file are read from where they lie, in any order and file."""

import io
import itertools
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress

import pytest
import torch
from torch_files import BASE, TENSORS, expected, raw, read, save

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.archive import Directories, directory_bytes
from mscvt.formats.torch_zip.reader import load, tensors_in
from mscvt.formats.torch_zip.standins import StoredTensor


def records_of(path):
    """The records of a file, without the folder that they are in."""
    with zipfile.ZipFile(path) as archive:
        return {entry.filename.partition("/")[2]: archive.read(entry) for entry in archive.infolist()}


def rewritten(path, records, order):
    """The same records in another order, as any zip program writes them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in order:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), records[name])
    return path


def test_records_in_any_order_are_read_from_where_they_lie(tmp_path):
    model = {name: torch.full((2, 3), float(number)) for number, name in enumerate("abcd")}
    records = records_of(save(tmp_path / "x.pt", model))
    names = ["data.pkl", "byteorder", "version", *(name for name in records if name.startswith("data/"))]
    for order in itertools.islice(itertools.permutations(names), 0, None, 97):
        path = rewritten(tmp_path / "y.pt", records, order)
        assert read(path, load(path)) == expected(model)
        assert {name: raw(tensor) for name, tensor in torch.load(path, weights_only=True).items()} == {
            name: raw(tensor) for name, tensor in model.items()
        }


def test_directory_in_another_order_is_read(tmp_path):
    path = save(tmp_path / "x.pt", TENSORS)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        at = archive.start_dir
    entries, rest = [], content[at:]
    while rest.startswith(b"PK\1\2"):
        length = 46 + sum(struct.unpack_from("<3H", rest, 28))
        entries.append(rest[:length])
        rest = rest[length:]
    path.write_bytes(content[:at] + b"".join(reversed(entries)) + rest)
    assert read(path, load(path)) == expected(TENSORS)


def test_directories_are_the_same_where_checksums_alone_are_others(tmp_path):
    path = save(tmp_path / "x.pt", TENSORS)
    with path.open("rb") as file:
        offset, count, content = directory_bytes(file.fileno(), 0, path.stat().st_size)
    known = Directories()
    first = known.parse(content, count, offset, 0)
    checksums = {record.entry - offset + 16 + byte for record in first.records.values() for byte in range(4)}
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        with suppress(MscvtError, UnicodeDecodeError):  # of what else is there, some may be anything
            assert (known.parse(bytes(changed), count, offset, 0) is first) == (at in checksums)
    assert known.parse(content, count, offset, 0) is first


def test_file_of_the_largest_alignment_is_read(tmp_path):
    with torch.utils.serialization.config.patch({"save.storage_alignment": 4096}):
        path = save(tmp_path / "x.pt", TENSORS)
    assert read(path, load(path)) == expected(TENSORS)


def test_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = save(tmp_path / "x.pt", TENSORS)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read(path, load(path)) == expected(TENSORS)


def test_file_inside_of_another_is_read_at_its_offset(tmp_path):
    one, two = io.BytesIO(), io.BytesIO()
    torch.save({"a": BASE}, one)
    torch.save({"a": BASE + 1}, two)
    path = tmp_path / "__0_0.distcp"
    path.write_bytes(one.getvalue() + two.getvalue() + one.getvalue())
    start, length = len(one.getvalue()), len(two.getvalue())
    assert read(path, load(path, start, length)) == expected({"a": BASE + 1})
    assert read(path, load(path, 0, start)) == expected({"a": BASE})
    for wrong in ((start, length - 1), (start - 1, length + 1), (start, length + 1), (0, start + length)):
        with pytest.raises(MscvtError, match=r"distcp"):
            load(path, *wrong)


def test_tensors_of_one_storage_are_read_each_from_its_place(tmp_path):
    model = {"a": BASE[:10].view(2, 5), "b": BASE[10:], "same": BASE[:10].view(2, 5)}
    path = save(tmp_path / "x.pt", model)
    state = load(path)
    assert read(path, state) == expected(model)
    assert all(type(tensor) is StoredTensor for tensor in state.values())
    assert len({tensor.storage.record.name for tensor in state.values()}) == 1
    assert state["a"].offset == state["same"].offset == state["b"].offset - 40


def test_attributes_of_parameters_are_not_asked(tmp_path):
    parameter = torch.nn.Parameter(torch.arange(6.0).view(2, 3).T)
    parameter.is_contiguous, parameter.storage_offset, parameter.shape_ = True, 5, "x"
    plain = torch.nn.Parameter(torch.arange(6.0))
    plain.dtype_, plain.offset, plain.tensor_model_parallel = torch.int8, 3, True
    path = save(tmp_path / "x.pt", {"plain": plain, "view": parameter})
    state = load(path)
    assert read(path, {"plain": state["plain"]}) == expected({"plain": plain})
    with pytest.raises(MscvtError, match=r"'view' is a view with strides \(1, 3\)"):
        list(tensors_in(path, 0, state, "the file"))


def test_headers_are_read_without_torch(tmp_path):
    path = save(tmp_path / "x.pt", {"a": BASE})
    program = (
        "import pathlib, sys; from mscvt.formats.torch_zip.reader import load; "
        "print(load(pathlib.Path(sys.argv[1]))['a'].shape, {'torch', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert result.stdout == "(40,) set()\n"
