"""Tensors that are read at once are what the unpickler makes of them opcode by opcode, whatever the pickle is."""

import pickle
import pickletools
import random
import re
from argparse import Namespace
from collections import Counter, OrderedDict

import pytest
import torch

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.reader import Headers, interpret, read_headers
from mscvt.formats.torch_zip.saved_tensors import Memo, SavedTensors
from mscvt.formats.torch_zip.standins import Recorded, Storage, StoredTensor
from mscvt.formats.torch_zip.unpickler import WORK, Unpickler
from mscvt.tensors.info import TORCH_NAMES

DTYPES = [getattr(torch, name) for name in TORCH_NAMES.values()]
WHOLE = torch.arange(4000, dtype=torch.float32)


def named(tensors):
    return {f"layers.{number}.weight": tensor for number, tensor in enumerate(tensors)}


STATES = {
    "alike": named(torch.empty(2 + number % 2, 3) for number in range(12)),
    "dtypes": named(torch.empty(2, 5, dtype=dtype) for dtype in DTYPES for _ in range(3)),
    "dimensions": named(torch.empty([2] * (number % 6)) for number in range(18)),
    "sizes": named(torch.empty(size, 1) for size in (0, 0, 255, 255, 256, 65535, 65535, 65536, 65536)),
    "views": named([WHOLE[at : at + 6].view(2, 3) for at in (0, 6, 300)] * 2 + [WHOLE[:12].view(3, 4).T] * 2),
    "tied": named([torch.empty(2)] * 3 + [WHOLE, WHOLE]),
    "parameters": named(torch.nn.Parameter(torch.empty(3)) for _ in range(4))
    | {"a": torch.empty(3, requires_grad=True)},
    "ordered": OrderedDict(named(torch.empty(4) for _ in range(4))),
    "shard": {"args": Namespace(a=1, b=[2, "c"]), "model": named(torch.empty(4) for _ in range(4)), "iteration": 7},
    "list": [torch.empty(3), torch.empty(3), "text", torch.empty(3)],
    "conjugated": named(torch.empty(3, dtype=torch.complex64).conj() for _ in range(3)),
}


def steps(data):
    """The opcodes of a pickle, each with what belongs to it."""
    starts = [at for _, _, at in pickletools.genops(data)]
    return [data[at:end] for at, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def with_long_numbers(data):
    """The same pickle, as those are from the 256th object on that is remembered."""
    return b"".join(
        pickle.LONG_BINPUT + step[1:] + bytes(3) if step[:1] == pickle.BINPUT else step for step in steps(data)
    )


@pytest.fixture(params=STATES, scope="module")
def saved(request, tmp_path_factory):
    """The headers of a file."""
    path = tmp_path_factory.mktemp("saved") / "x.pt"
    torch.save(STATES[request.param], path)
    headers = read_headers(path)
    return Headers(path, headers.directory, with_long_numbers(headers.pickled))


def outcome(headers, data, work, *, at_once):
    """What is read of a pickle, or the error; what is remembered, and what work is left."""
    unpicklers = []

    class Watched(Unpickler):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            unpicklers.append(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mscvt.formats.torch_zip.unpickler.Unpickler", Watched)
        if not at_once:
            patched.setattr(SavedTensors, "read", lambda self, u, found: None)
        try:
            found = interpret(Headers(headers.path, headers.directory, data), work)
        except MscvtError as error:
            return str(error), None, None
    (unpickler,) = unpicklers
    unpickler.memo.put_together()
    return found, unpickler.memo, unpickler.work_left


def parts(value):
    """What an object is, and the objects in it."""
    if isinstance(value, Memo):
        return "memo", [value[number] for number in sorted(value)]
    if isinstance(value, dict):
        return "dict", [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [*value]
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(value, key=repr)
    if isinstance(value, StoredTensor):
        return (value.dtype, value.shape, value.strides, value.offset), [value.storage]
    if isinstance(value, Storage):
        return (value.record, value.start, value.kind), []
    if isinstance(value, Recorded):
        return value.kind, [value.arguments, value.state]
    return (type(value).__name__, repr(value)), []


def assert_same(one, two):
    """Equal, and the same objects in the same places."""
    twins, todo = {}, [(one, two)]
    while todo:
        one, two = todo.pop()
        (what, inside), (same, same_inside) = parts(one), parts(two)
        assert what == same
        if inside and what != "tuple":
            assert twins.setdefault(id(one), id(two)) == id(two)
        if id(one) not in twins or twins.get(("seen", id(one))) is None:
            twins["seen", id(one)] = True
            todo += zip(inside, same_inside, strict=True)


def assert_read_alike(headers, data, work=WORK):
    one, two = (outcome(headers, data, work, at_once=at_once) for at_once in (True, False))
    assert_same(one, two)
    return one


def test_tensors_of_files_of_torch_are_read_as_one_by_one(saved):
    found, _, work_left = assert_read_alike(saved, saved.pickled)
    assert not isinstance(found, str)
    total = WORK - work_left
    for work in [*range(0, total, 17), *range(total - 70, total + 1)]:
        assert_read_alike(saved, saved.pickled, work)


def test_most_tensors_of_a_file_are_read_at_once(tmp_path, monkeypatch):
    shapes = [(3,), (2, 3), (2, 3, 4)]
    state = named(torch.empty(shapes[number % 3], dtype=DTYPES[number % 5]) for number in range(500))
    torch.save(state, tmp_path / "x.pt")
    headers, calls = read_headers(tmp_path / "x.pt"), Counter()
    make = Unpickler.make
    monkeypatch.setattr(Unpickler, "make", lambda *given: calls.update(["make"]) or make(*given))
    assert {name: value.shape for name, value in interpret(headers).items()} == {
        n: tuple(t.shape) for n, t in state.items()
    }
    assert calls["make"] < 150


def edit_byte(chance, found):
    at = chance.randrange(len(found))
    place = chance.randrange(len(found[at]))
    value = chance.choice([*b"().012NRQhjrtuKMJX\x85\x86\x87\x88\x94", 0, 255, chance.randrange(256)])
    found[at] = found[at][:place] + bytes([value]) + found[at][place + 1 :]


def edit_number(chance, found):
    """Give a step the number of another one, or one beside it."""
    numbered = [at for at, step in enumerate(found) if step[:1] in b"hjrKMJ" and len(step) > 1]
    one, two = chance.choice(numbered), chance.choice(numbered)
    value = int.from_bytes(found[two][1:], "little") + chance.choice([-8, -1, 0, 0, 1, 8, 1 << 31])
    found[one] = found[one][:1] + (value % (1 << 32)).to_bytes(4, "little")[: len(found[one]) - 1]


def copy_step(chance, found):
    found.insert(chance.randrange(len(found)), chance.choice(found))


def leave_out(chance, found):
    del found[chance.randrange(len(found))]


def swap(chance, found):
    one, two = chance.randrange(len(found)), chance.randrange(len(found))
    found[one], found[two] = found[two], found[one]


def look_up(chance, found):
    """Ask for something that may be remembered, and leave it or drop it."""
    number = chance.choice([step[1:] for step in found if step[:1] == b"r"])
    found.insert(chance.randrange(len(found)), b"j" + number + chance.choice([b"", b"0", b"0", b"0", b"\x940"]))


def repeat(chance, found):
    """Write some steps again, such as a whole tensor."""
    start, count = chance.randrange(len(found)), chance.choice([3, 40, chance.randrange(100)])
    at = chance.randrange(len(found))
    found[at:at] = found[start : start + count]


def renumber(chance, found):
    """Move all numbers from some step on by some."""
    start, by = chance.randrange(len(found)), chance.choice([-9, -3, 1, 5, 1000, 1 << 30, (1 << 31) - 5])
    for at in range(start, len(found)):
        if found[at][:1] == b"r":
            value = (int.from_bytes(found[at][1:], "little") + by) % (1 << 32)
            found[at] = b"r" + value.to_bytes(4, "little")


EDITS = [edit_byte, edit_number, edit_number, copy_step, leave_out, swap, look_up, look_up, repeat, renumber]


def test_tensors_of_damaged_pickles_are_read_or_refused_as_one_by_one(saved):
    chance, whole = random.Random(len(saved.pickled)), steps(saved.pickled)
    kinds = Counter()
    for _ in range(400):
        found = [*whole]
        for _ in range(chance.choice([1, 1, 1, 2, 4])):
            chance.choice(EDITS)(chance, found)
        work = chance.choice([WORK, WORK, WORK, chance.randrange(30 * len(whole))])
        result, *_ = assert_read_alike(saved, b"".join(found), work)
        kinds["refused" if isinstance(result, str) else "read"] += 1
    assert min(kinds.values()) > 20


def test_tensors_whose_last_argument_changes_meanwhile_are_read_as_one_by_one(tmp_path):
    """A dict that says whether a tensor is conjugated; here it is the first of two dicts of tensors, filled between."""
    state = {name: named(torch.empty(3) for _ in range(4)) for name in "ab"}
    torch.save(state, tmp_path / "x.pt")
    headers = read_headers(tmp_path / "x.pt")
    data = re.sub(
        rb"(\)Rr.{4})t", lambda match: match[1] + b"h\x02t", with_long_numbers(headers.pickled), flags=re.DOTALL
    )
    found, *_ = assert_read_alike(headers, data)
    assert {name: {type(value) for value in found[name].values()} for name in "ab"} == {
        "a": {StoredTensor},
        "b": {Recorded},
    }


def test_tensor_beyond_a_storage_of_an_unknown_class_is_refused_as_one_by_one(tmp_path):
    """Of such a class nobody knows how many bytes there have to be."""
    state = named(torch.empty(size, dtype=torch.float8_e4m3fn) for size in (4, 4, 4, 2))
    torch.save(state, tmp_path / "x.pt")
    headers = read_headers(tmp_path / "x.pt")
    data = with_long_numbers(headers.pickled).replace(b"UntypedStorage", b"UnknownStorage")
    assert_read_alike(headers, data)
    result, *_ = assert_read_alike(headers, data.replace(b"X\1\0\0\x002r", b"X\1\0\0\x003r"))
    assert "needs 4 bytes of its record 'x/data/3', which has 2" in result


@pytest.mark.parametrize("shift", [0, 3, -3])
@pytest.mark.parametrize("count", [3, 4])
def test_tensor_that_takes_numbers_of_the_one_before_is_read_as_one_by_one(count, shift, tmp_path):
    torch.save(named(torch.empty(3) for _ in range(count)), tmp_path / "x.pt")
    headers = read_headers(tmp_path / "x.pt")
    found = steps(with_long_numbers(headers.pickled))
    puts = [at for at, step in enumerate(found) if step[:1] == pickle.LONG_BINPUT]
    for before, at in zip(puts[-16:-8], puts[-8:], strict=True):
        found[at] = pickle.LONG_BINPUT + (int.from_bytes(found[before][1:], "little") + shift).to_bytes(4, "little")
    asked = [pickle.LONG_BINGET + found[at][1:] + pickle.POP for at in (puts[-16], puts[-9])]
    found[-2:-2] = [*asked, pickle.BINUNICODE + b"\1\0\0\0a", pickle.LONG_BINGET + found[puts[-1]][1:]]
    result, *_ = assert_read_alike(headers, b"".join(found))
    assert result["a"] is result[f"layers.{count - 1}.weight"]
