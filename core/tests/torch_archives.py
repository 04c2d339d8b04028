"""A file of torch.save whose records can be edited, and what is read of it."""

import io
import struct
import zipfile

import torch

from mscvt.formats.torch_zip.reader import load, tensors_in

MODEL = {
    "a": torch.arange(15, dtype=torch.float32).view(3, 5),
    "b": torch.arange(100, 115, dtype=torch.float32).view(3, 5),
    "c": torch.arange(7, dtype=torch.float32).to(torch.bfloat16),
    "none": torch.empty(0),
}


def raw(tensor):
    return tuple(tensor.shape), bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


EXPECTED = {name: raw(tensor) for name, tensor in MODEL.items()}
_BUFFER = io.BytesIO()
torch.save(MODEL, _BUFFER)
SAVED = _BUFFER.getvalue()


class File:
    """A file of torch.save whose records can be edited."""

    def __init__(self, content=SAVED):
        self.content = bytearray(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            self.directory = archive.start_dir
            self.headers = {entry.filename[8:]: entry.header_offset for entry in archive.infolist()}
        self.entries, at = {}, self.directory
        for name in self.headers:
            self.entries[name] = at
            at += 46 + sum(struct.unpack_from("<3H", self.content, at + 28))
        self.end64 = at

    def put(self, at, layout, *values):
        struct.pack_into(layout, self.content, at, *values)

    def get(self, at, layout):
        return struct.unpack_from(layout, self.content, at)


def read(path):
    content = path.read_bytes()
    return {
        name: (info.shape, content[info.offset : info.offset + info.nbytes])
        for name, info in tensors_in(path, 0, load(path), "the file")
    }
