"""`.metadata` made to use up memory or time, or to say two things: refused at once, by whichever reader takes it."""

import pickle
import time
from itertools import chain
from unittest.mock import patch

import pytest
import torch
from dist_checkpoints import WEIGHTS, put, small_files, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.metadata import MetadataIndex

from mscvt.errors import MscvtError
from mscvt.formats.megatron_dist.classes import ALLOWED, INDEX, PLACE
from mscvt.formats.megatron_dist.metadata import Metadata
from mscvt.formats.megatron_dist.reader import GlobalSource
from mscvt.formats.torch_zip.native import unpickle_natively
from mscvt.formats.torch_zip.standins import Global, Pairs, Recorded
from mscvt.formats.torch_zip.unpickler import unpickle


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return small_files(tmp_path_factory.mktemp("whole"))


def plain(value, depth=0):
    """What a reader gave, in words that compare, wherever it was a dict."""
    if depth > 20:
        return "deep"
    if isinstance(value, (dict, Pairs)):
        items = value.items() if isinstance(value, dict) else zip(value[::2], value[1::2], strict=True)
        return {repr(plain(key, depth + 1)): plain(found, depth + 1) for key, found in items}
    if isinstance(value, Global) or callable(value):  # a name, or what would be called by it
        return str(getattr(value, "kind", value if isinstance(value, Global) else "torch.Size"))
    if isinstance(value, Recorded):
        return value.kind, plain(value.state, depth + 1)
    return [plain(item, depth + 1) for item in value] if isinstance(value, (tuple, list)) else value


BYTES = st.integers(0, 255) | st.sampled_from(b"}])(eus0R\x85b\x94")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(edits=st.lists(st.tuples(st.floats(0, 1), BYTES), max_size=2))
def test_both_readers_of_metadata_say_the_same(edits, whole):
    content = bytearray(whole[".metadata"])
    for place, value in edits:
        content[int(place * (len(content) - 1))] = value
    swift = unpickle_natively(bytes(content), ALLOWED)
    assert swift is not None or bytes(content) != whole[".metadata"]
    if swift is None:
        return  # it leaves to the other one whatever is unusual
    try:
        slow = unpickle(bytes(content), lambda pid: None, allowed=ALLOWED)
    except Exception:  # which is stricter about what may be appended to what
        return
    assert plain(swift) == plain(slow)


BOMBS = {
    "dicts": b"\x80\x04(" + b"}" * 2_100_000 + b"t.",
    "plain": pickle.dumps({"state_dict_metadata": {}}),
    "empty": b"",
    "remembered": b"\x80\x04]r\xff\xff\xff\x7f.",
    "dict_as_key": b"\x80\x04}]Ns.",
    "lists_nested": b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_metadata_that_would_blow_up_is_refused_at_once(name, whole, tmp_path):
    put(tmp_path, whole | {".metadata": BOMBS[name]})
    began = time.process_time()
    said = "made to use up memory" if name == "dicts" else ""
    with pytest.raises(MscvtError, match=rf"\.metadata.*{said}"):
        GlobalSource(tmp_path, lambda name: True)
    assert time.process_time() - began < 20


LIST = b"}\x94(NNu"
NAME = b"\x8c\x05torch\x8c\x05int32\x93"


@pytest.mark.parametrize(
    "pickled",
    [
        LIST + b"h\0b" * 12,  # a list doubles with each
        NAME + b"\x8c\x01a\x8c\x01b\x86b",  # a name would be another one, in all files to come
        b"\x8c\x13collections\x8c\x0bOrderedDict\x93(" + b"N" * 1000 + b"tR",  # each call copies what it is given
    ],
    ids=["list", "name", "call"],
)
def test_swift_reader_leaves_what_would_be_misused_to_the_other_one(pickled):
    assert unpickle_natively(b"\x80\x04" + pickled + b".", ALLOWED) is None
    assert str(unpickle_natively(b"\x80\x04" + NAME + b".", ALLOWED)) == "torch.int32"


def tower():
    """A tuple of few bytes, and more than anyone could hash or show."""
    found = ()
    for _ in range(70):
        found = (found, found)
    return found


def test_what_takes_forever_to_show_is_refused(tmp_path):
    def name_by_it(metadata):
        metadata.state_dict_metadata = {Tower(): None}

    class Tower:
        def __reduce__(self):
            return torch.Size, (tower(),)

    def transform(metadata):
        for place in metadata.storage_data.values():
            place.transform_descriptors = tower()

    for change, said in ((name_by_it, "has a name that is none"), (transform, "is stored transformed")):
        with pytest.raises(MscvtError, match=rf"\.metadata: .*{said}"):
            GlobalSource(write_folder(tmp_path, {"a": [((0, 0), WEIGHTS["a"])]}, change=change), lambda name: True)


def test_chunks_that_tensors_have_in_common_are_refused(tmp_path):
    def share(metadata):
        entry = metadata.state_dict_metadata["a"]
        entry.size, chunk = torch.Size((0, 6)), entry.chunks[0]
        chunk.sizes = torch.Size((0, 6))
        entry.chunks = [chunk] * 1000
        for number in range(20):
            metadata.state_dict_metadata[f"a{number}"] = entry

    write_folder(tmp_path, {"a": [((0, 0), WEIGHTS["a"])]}, change=share)
    with (
        patch("mscvt.formats.megatron_dist.metadata._FEW_CHUNKS", 15_000),
        pytest.raises(MscvtError, match="more chunks than places"),
    ):
        GlobalSource(tmp_path, lambda name: True)


def test_offsets_of_one_hash_take_no_longer_than_others(tmp_path):
    indices = [tuple(((1 << 61) - 1) * (number >> bit & 1) for bit in range(13)) for number in range(1 << 13)]
    assert len({hash(index) for index in indices}) == 1
    items = [(Recorded(INDEX, (), {"fqn": "a", "offset": index}), Recorded(PLACE)) for index in indices]
    began = time.process_time()
    Metadata(tmp_path, Recorded("", (), {"state_dict_metadata": {}, "storage_data": Pairs(chain.from_iterable(items))}))
    assert time.process_time() - began < 1


@pytest.mark.parametrize(("twice", "said"), [("a", "one chunk of 'a'"), ("x", "the object 'x'")])
def test_items_that_are_the_same_are_refused(twice, said, tmp_path):
    def repeat(metadata):
        index, place = next(item for item in metadata.storage_data.items() if item[0].fqn == twice)
        metadata.storage_data[Index(index.fqn, index.offset)] = place

    class Index(MetadataIndex):
        __hash__, __eq__ = object.__hash__, object.__eq__

        def __reduce__(self):
            return MetadataIndex, (), vars(self)

    chunks = {"a": [((0, 0), WEIGHTS["a"])], "b": [((0,), WEIGHTS["b"])]}
    with pytest.raises(MscvtError, match=rf"\.metadata: two of its items are {said}"):
        GlobalSource(write_folder(tmp_path, chunks, {"x": [None]}, change=repeat), lambda name: True).object("x")


@pytest.mark.parametrize("which", ["chunk", "item"])
def test_offset_that_takes_forever_to_hash_is_refused(which, tmp_path):
    def change(metadata):
        held = metadata.state_dict_metadata["a"].chunks if which == "chunk" else metadata.storage_data
        object.__setattr__(next(iter(held)), "offsets" if which == "chunk" else "offset", tower())

    write_folder(tmp_path, {"a": [((0, 0), WEIGHTS["a"])]}, change=change)
    with pytest.raises(MscvtError, match=r"\.metadata: .* no list of whole numbers"):
        GlobalSource(tmp_path, lambda name: True)


@pytest.mark.parametrize("shape", [(1 << 61, 8), (1 << 40, 1 << 40), (3, 1 << 62)])
def test_absurd_shape_is_refused(shape, tmp_path):
    def change(metadata):
        metadata.state_dict_metadata["a"].size = torch.Size(shape)

    write_folder(tmp_path, {"a": [((0, 0), WEIGHTS["a"])]}, change=change)
    with pytest.raises(MscvtError, match=r"\.metadata"):
        GlobalSource(tmp_path, lambda name: True)


def test_boxes_that_meet_everywhere_are_refused_at_once(tmp_path):
    parts = [((0, at), torch.zeros(2, 1)) for at in range(600)]
    write_folder(tmp_path, {"a": parts}, change=lambda metadata: None)
    GlobalSource(tmp_path, lambda name: True)

    def widen(metadata):
        chunks = metadata.state_dict_metadata["a"].chunks
        for chunk in chunks[:300]:
            chunk.sizes = torch.Size((1, 600 - chunk.offsets[1]))

    write_folder(tmp_path, {"a": parts}, change=widen)
    began = time.process_time()
    with pytest.raises(MscvtError, match="in more than one of them"):
        GlobalSource(tmp_path, lambda name: True)
    assert time.process_time() - began < 5
