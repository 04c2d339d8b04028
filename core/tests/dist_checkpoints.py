"""Folders of `torch.distributed.checkpoint`, written with torch's own classes and nothing of the package under test."""

import io
import pickle
from itertools import product

import torch
from torch.distributed.checkpoint import metadata as meta
from torch.distributed.checkpoint.filesystem import _StorageInfo

WEIGHTS = {"a": torch.arange(24, dtype=torch.float32).reshape(4, 6), "b": torch.arange(5).to(torch.bfloat16)}


def pieces(whole, cuts):
    """The chunks of a tensor that is cut before these indices of each dimension: (offsets, a copy)."""
    bounds = [
        list(zip([0, *marks], [*marks, size], strict=True)) for marks, size in zip(cuts, whole.shape, strict=True)
    ]
    for box in product(*bounds):
        yield tuple(start for start, _ in box), whole[tuple(slice(*ends) for ends in box)].clone()


def write_folder(folder, chunks, objects=None, *, files=2, change=lambda metadata: None):
    """Write chunks (name -> [(offsets, tensor)]) and objects round the files, `.metadata` last."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [io.BytesIO() for _ in range(files)]
    tensors, places = {}, {}

    def put(value, number):
        file = contents[number % files]
        start = file.tell()
        single = io.BytesIO()
        torch.save(value, single)
        file.write(single.getvalue())
        return _StorageInfo(f"__{number % files}_0.distcp", start, len(single.getvalue()))

    number = 0
    for name, found in chunks.items():
        shape = torch.Size(
            max(offsets[at] + part.shape[at] for offsets, part in found) for at in range(found[0][1].dim())
        )
        boxes = [meta.ChunkStorageMetadata(torch.Size(offsets), part.shape) for offsets, part in found]
        tensors[name] = meta.TensorStorageMetadata(meta.TensorProperties(found[0][1].dtype), shape, boxes)
        for offsets, part in found:
            places[meta.MetadataIndex(name, torch.Size(offsets))] = put(part, number)
            number += 1
    for name, value in (objects or {}).items():
        tensors[name] = meta.BytesStorageMetadata()
        places[meta.MetadataIndex(name)] = put(value, number)
        number += 1
    for index, content in enumerate(contents):
        (folder / f"__{index}_0.distcp").write_bytes(content.getvalue())
    everything = meta.Metadata(state_dict_metadata=tensors, storage_data=places)
    change(everything)
    (folder / ".metadata").write_bytes(pickle.dumps(everything, protocol=4))
    return folder


def small_files(folder):
    """The files of a small checkpoint of `WEIGHTS`, which are written to a folder first: name -> bytes."""
    chunks = {"a": list(pieces(WEIGHTS["a"], [[2], [4]])), "b": list(pieces(WEIGHTS["b"], [[]]))}
    return {path.name: path.read_bytes() for path in write_folder(folder, chunks, {"x": [None]}).iterdir()}


def put(folder, files):
    """Write files over those of a folder, which may be mapped still."""
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)  # whoever writes to a file that is being read waits for its reader
        (folder / name).write_bytes(content)
