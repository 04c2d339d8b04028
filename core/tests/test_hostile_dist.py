"""`.metadata` and `.distcp` that nobody vouches for: read right, or refused at once by name, and nothing is run."""

import os
import pickle
from argparse import Namespace
from collections.abc import Mapping

import pytest
import torch
from dist_checkpoints import put, small_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mscvt.errors import MscvtError
from mscvt.formats.megatron_dist.checkpoint import DistCheckpoint
from mscvt.formats.megatron_dist.reader import GlobalSource
from mscvt.formats.megatron_dist.writer import write_common
from mscvt.tensors.computing import values_of

FUZZ = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMED = (".metadata", ".distcp")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a small checkpoint: name -> bytes."""
    return small_files(tmp_path_factory.mktemp("whole"))


def read_or_refuse(folder):
    """Read every tensor, unless a file is refused by name; any other error is one of the test."""
    try:
        source = GlobalSource(folder, lambda name: True)
        for name, info in source.tensors.items():
            strides = torch.empty(info.shape, device="meta").stride()
            assert values_of(source.tensor(name), 0, info.shape, strides).shape == info.shape
        for name in source.metadata.objects:
            source.object(name)
    except MscvtError as error:
        if not any(name in str(error) for name in NAMED):
            raise


@settings(FUZZ, max_examples=250)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 255) | st.sampled_from(b"}])(.0R\x81\x86\x85b\x94")),
        min_size=1,
        max_size=4,
    ),
    name=st.sampled_from([".metadata", "__0_0.distcp", "__1_0.distcp"]),
    end=st.integers(0, 9),
)
def test_damaged_file_is_read_or_refused(edits, name, end, whole, tmp_path):
    content = bytearray(whole[name])
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    put(tmp_path, whole | {name: bytes(content[: len(content) - max(0, end - 6)])})
    read_or_refuse(tmp_path)


class Harm:
    def __init__(self, what, *arguments):
        self.what, self.arguments = what, arguments

    def __reduce__(self):
        return self.what, self.arguments


@pytest.mark.parametrize("what", [os.system, exec, print, torch.load, pickle.loads], ids=lambda what: what.__name__)
def test_pickle_that_would_call_something_is_refused_by_its_name(what, whole, tmp_path):
    put(tmp_path, whole | {".metadata": pickle.dumps({"a": Harm(what, "echo harm")})})
    with pytest.raises(MscvtError, match=rf"\.metadata: its pickle .*{what.__name__}"):
        GlobalSource(tmp_path, lambda name: True)


def test_class_that_no_metadata_has_is_refused_by_its_name(whole, tmp_path):
    put(tmp_path, whole | {".metadata": pickle.dumps(st.integers)})
    with pytest.raises(MscvtError, match=r"\.metadata: its pickle names 'hypothesis.*, which no file of this kind"):
        GlobalSource(tmp_path, lambda name: True)


@pytest.fixture(scope="module")
def checkpoint(whole, tmp_path_factory):
    """The files of a small checkpoint of Megatron: name -> bytes."""
    write_common(folder := tmp_path_factory.mktemp("common"), {"args": Namespace(num_layers=2), "iteration": 3})
    return whole | {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(FUZZ, max_examples=150)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    name=st.sampled_from(["common.pt", "metadata.json"]),
    end=st.integers(0, 9),
)
def test_damaged_record_of_a_checkpoint_is_read_or_refused(edits, name, end, checkpoint, tmp_path):
    content = bytearray(checkpoint[name])
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    put(tmp_path, checkpoint | {name: bytes(content[: len(content) - max(0, end - 6)])})
    try:
        opened = DistCheckpoint(tmp_path)
    except MscvtError as error:
        if name not in str(error):
            raise
        return
    assert isinstance(opened.args, Mapping)
    opened.close()


def test_checkpoint_of_another_backend_is_named_as_one(checkpoint, tmp_path):
    put(tmp_path, checkpoint | {"metadata.json": b'{"sharded_backend": "zarr"}'})
    with pytest.raises(MscvtError, match="says that the checkpoint is of the kind 'zarr', expected 'torch_dist'"):
        DistCheckpoint(tmp_path)
