"""`.metadata`, written without torch: the same objects as torch's own classes make."""

import pickle
import subprocess
import sys

import pytest
import torch
from torch.distributed.checkpoint import metadata as meta
from torch.distributed.checkpoint.filesystem import _StorageInfo

from mscvt.formats.megatron_dist.classes import ALLOWED
from mscvt.formats.megatron_dist.metadata import Place
from mscvt.formats.megatron_dist.metadata_written import MetadataPickle
from mscvt.formats.torch_zip.native import unpickle_natively
from mscvt.formats.torch_zip.standins import Recorded
from mscvt.tensors.info import TORCH_NAMES

LONG = "layers." * 40 + "weight"
"""A name of more than 255 bytes."""
STARTS = ((0, 0, 0), (1, 0, 0))
WHOLE, PART = (2, 70_000, 300), (1, 70_000, 300)
LENGTH = 21_000_960


@pytest.fixture(scope="module")
def theirs():
    """One with every dtype, tensors that share a chunk and its place, one without dimensions, and objects."""
    tensors, places = {}, {}
    for number, name in enumerate((*TORCH_NAMES.values(), LONG)):
        dtype = torch.float16 if name == LONG else getattr(torch, name)
        chunks = [meta.ChunkStorageMetadata(torch.Size(start), torch.Size(PART)) for start in STARTS]
        for key in (name, f"{name}.again"):
            tensors[key] = meta.TensorStorageMetadata(meta.TensorProperties(dtype), torch.Size(WHOLE), [*chunks])
        for at, start in enumerate(STARTS):
            place = _StorageInfo(f"__{number}_0.distcp", at << 33, LENGTH)
            places |= {meta.MetadataIndex(key, torch.Size(start)): place for key in (name, f"{name}.again")}
    scalar = [meta.ChunkStorageMetadata(torch.Size(()), torch.Size(()))]
    tensors["scalar"] = meta.TensorStorageMetadata(meta.TensorProperties(torch.float32), torch.Size(()), scalar)
    places[meta.MetadataIndex("scalar", torch.Size(()))] = _StorageInfo("__0_0.distcp", 1 << 40, LENGTH)
    for number in range(300):
        tensors[f"rng_state.{number}"] = meta.BytesStorageMetadata()
        places[meta.MetadataIndex(f"rng_state.{number}")] = _StorageInfo("objects.distcp", 0, 900)
    return meta.Metadata(state_dict_metadata=tensors, storage_data=places)


@pytest.fixture(scope="module")
def ours():
    """The pickle of the same."""
    written = MetadataPickle()
    for number, (dtype, name) in enumerate((*TORCH_NAMES.items(), ("F16", LONG))):
        for at, start in enumerate(STARTS):
            place = Place(f"__{number}_0.distcp", at << 33, LENGTH)
            written.add_chunk((name, f"{name}.again"), dtype, WHOLE, start, PART, place)
    written.add_chunk(("scalar",), "F32", (), (), (), Place("__0_0.distcp", 1 << 40, LENGTH))
    written.add_objects([f"rng_state.{number}" for number in range(300)], Place("objects.distcp", 0, 900))
    return written.content()


def described(value):
    """The types and attributes of a value and of all that it holds, in order."""
    if isinstance(value, (list, tuple)):
        return type(value), [described(item) for item in value]
    if isinstance(value, dict):
        return type(value), [(described(key), described(item)) for key, item in value.items()]
    if isinstance(value, Recorded):
        return value.kind, described(value.arguments), described(value.state)
    return type(value), described(vars(value)) if type(value).__module__.startswith("torch.dist") else value


def test_metadata_holds_what_torchs_own_classes_make(ours, theirs):
    found = pickle.loads(ours)
    assert found == theirs
    assert described(found) == described(pickle.loads(pickle.dumps(theirs, protocol=4)))


def test_metadata_says_what_torchs_pickle_says_to_the_swift_reader(ours, theirs):
    found, expected = (unpickle_natively(data, ALLOWED) for data in (ours, pickle.dumps(theirs, protocol=4)))
    assert found is not None
    assert described(found) == described(expected)


def test_metadata_is_read_with_any_number_of_names():
    for count in range(64):
        names = [f"rng_state.{number}" for number in range(count)]
        written = MetadataPickle()
        written.add_objects(names, Place("objects.distcp", 0, 900))
        assert list(pickle.loads(written.content()).state_dict_metadata) == names


def test_metadata_is_written_without_torch():
    code = (
        "import sys\n"
        "from mscvt.formats.megatron_dist.metadata_written import MetadataPickle\n"
        "MetadataPickle().content()\n"
        "raise SystemExit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
