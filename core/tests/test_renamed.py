"""Checkpoints that call tensors by other names than the family does."""

from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

import pytest
import torch
from small_plugins import ACME, CONFIG, registry_of

from mscvt.errors import MscvtError
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.renamed import renamed
from mscvt.testing import hf2mg, save_huggingface, shards_in, source_tensors

INFOS = {"old.a": TensorInfo("BF16", (2,), 0, 0), "b": TensorInfo("F32", (3,), 0, 4)}


@dataclass
class Recorder:
    """A source that gives the name that it is asked for as a tensor."""

    tensors: dict
    files: tuple = (Path("f"),)
    notes: tuple = ("seen",)

    def tensor(self, name):
        return name


def test_tensors_have_the_familys_names_and_are_read_under_their_own():
    source = renamed(Recorder(INFOS), {"old.a": "a", "old.b": "b"})
    assert source.tensors == {"a": INFOS["old.a"], "b": INFOS["b"]}
    assert [source.tensor(name) for name in ("a", "b")] == ["old.a", "b"]
    assert (source.files, source.notes) == ((Path("f"),), ("seen",))


def test_source_with_the_familys_names_is_given_as_it_is():
    source = Recorder(INFOS)
    assert renamed(source, {"older.a": "old.a"}) is source
    assert renamed(source, {}) is source


def test_tensor_under_both_names_is_refused():
    with pytest.raises(MscvtError, match=r"the source has b under another name too, old\.a") as caught:
        renamed(Recorder(INFOS), {"old.a": "b"})
    assert "would be lost" in caught.value.hint


def test_checkpoint_under_other_names_becomes_the_same_shards(tmp_path):
    name, other = "model.embed_tokens.weight", "transformer.wte.weight"
    registry = registry_of(changed(ACME, spellings={other: name}))
    tensors = source_tensors(registry.family("acme"), CONFIG)
    for folder, spelled in (("usual", tensors), ("other", {other if n == name else n: t for n, t in tensors.items()})):
        hf2mg(save_huggingface(tmp_path / folder, CONFIG, spelled), tmp_path / f"{folder}-mg", registry=registry)
    (usual,), (found,) = (shards_in(tmp_path / f"{folder}-mg").values() for folder in ("usual", "other"))
    assert found["args"] == usual["args"]
    assert list(found["model"]) == list(usual["model"])
    assert all(torch.equal(found["model"][key], tensor) for key, tensor in usual["model"].items() if tensor is not None)
