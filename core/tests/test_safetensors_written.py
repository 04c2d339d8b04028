"""The header that is written: JSON as the standard library writes it, which the format's own library reads."""

import json

import torch
from safetensors.torch import load_file

from mscvt.formats.huggingface.safetensors_header import make_header

TENSORS = {
    "model.norm.weight": ("BF16", (3,)),
    "a": ("F32", ()),
    'in "quotes"\\ and é, \U0001f600\u2028': ("BF16", (2, 3)),
    "b": ("I64", (0, 4)),
    "c": ("BF16", (3,)),
    "d": ("BF16", (2, 3)),
}


def test_header_says_where_each_tensor_lies(tmp_path):
    header, starts, size = make_header(TENSORS)
    entries = {}
    for (name, (dtype, shape)), nbytes in zip(TENSORS.items(), [6, 4, 12, 0, 6, 12], strict=True):
        start = starts[name] - len(header)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + nbytes]}
    expected = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":"))
    assert header[8:].decode().rstrip(" ") == expected
    assert int.from_bytes(header[:8], "little") == len(header) - 8
    assert len(header) % 8 == 0
    assert size == len(header) + 40
    (tmp_path / "model.safetensors").write_bytes(header + bytes(range(40)))
    loaded = load_file(tmp_path / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in loaded.items()} == {n: s for n, (_, s) in TENSORS.items()}
    assert loaded["c"].view(torch.uint8).tolist() == list(range(22, 28))


def test_header_of_no_tensors(tmp_path):
    header, starts, size = make_header({})
    (tmp_path / "model.safetensors").write_bytes(header)
    assert load_file(tmp_path / "model.safetensors") == {} == starts
    assert size == len(header)
