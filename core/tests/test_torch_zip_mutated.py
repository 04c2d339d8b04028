"""Damaged zip files at random: refused, or read as an independent reader does."""

import io
import itertools
import operator
import pickle
import random
import zipfile
from collections import Counter, OrderedDict

from torch_archives import File, read

from mscvt.errors import MscvtError

NUMBERS = [0, 1, 7, 28, 60, 64, 200, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]
IN_ENTRY = [(8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (30, "<H"), (34, "<H"), (42, "<I")]
IN_HEADER = [(6, "<H"), (8, "<H"), (14, "<I"), (18, "<I"), (22, "<I"), (26, "<H"), (28, "<H")]
OPCODES = b"().}]0124NRQbcehjqrstuX\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94KMJ\x00\x01\x05\xff"


def edit_number(chance, file, starts, fields):
    """Put another number into a field of the directory or of a header: a usual one, or one close to what was there."""
    (field, layout), start = chance.choice(fields), chance.choice(list(starts.values()))
    if start + field + 4 > len(file.content):
        return
    near = [file.get(start + field, layout)[0] + step for step in (-64, -1, 1, 64)]
    value = chance.choice([*NUMBERS, *near, *file.headers.values()])
    file.put(start + field, layout, value & (0xFFFF if layout == "<H" else 0xFFFFFFFF))


def swap_records(chance, file):
    """Exchange where the directory says that two records are."""
    one, two = (file.entries[name] + chance.choice([42, 20, 24]) for name in chance.sample(list(file.entries), 2))
    first, second = file.get(one, "<I"), file.get(two, "<I")
    file.put(one, "<I", *second)
    file.put(two, "<I", *first)


def edit_pickle(chance, file):
    at = 64 + chance.randrange(file.headers[".format_version"] - 80)
    file.content[at] = chance.choice(OPCODES)


def edit_byte(chance, file, first=0):
    at = chance.randrange(first, len(file.content))
    file.content[at] = chance.choice([0, 1, 255, chance.randrange(256), file.content[at] ^ 1 << chance.randrange(8)])


def cut(chance, file):
    at = chance.randrange(len(file.content))
    del file.content[at : at + chance.choice([1, 30, 46, 64, chance.randrange(3000)])]


def insert(chance, file):
    at = chance.randrange(len(file.content))
    file.content[at:at] = chance.choice([bytes(64), chance.randbytes(chance.randrange(70)), file.content[-98:]])


MUTATIONS = [
    lambda chance, file: edit_number(chance, file, file.entries, IN_ENTRY),
    lambda chance, file: edit_number(chance, file, file.headers, IN_HEADER),
    swap_records,
    edit_pickle,
    edit_byte,
    lambda chance, file: edit_byte(chance, file, file.end64),
]


def mutated(chance):
    """A damaged file: some edits of one kind, or something cut out or put in."""
    file = File()
    if chance.random() < 0.2:
        chance.choice([cut, insert])(chance, file)
    else:
        mutation = chance.choice(MUTATIONS)
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            mutation(chance, file)
    return bytes(file.content)


WIDTHS = {"FloatStorage": 4, "BFloat16Storage": 2, "IntStorage": 4}


class Name(str):
    """Of a class or function; a call of it gives nothing."""

    def __call__(self, *_arguments):
        return None


class Independent(pickle.Unpickler):
    """The standard library's readers of zip files and pickles, with nothing of torch and nothing of mscvt."""

    def __init__(self, content):
        self.archive = zipfile.ZipFile(io.BytesIO(content))
        super().__init__(io.BytesIO(self.record("data.pkl")))

    def record(self, name):
        info = self.archive.getinfo(f"archive/{name}")
        info.CRC = None  # damage to data is no concern here
        return self.archive.read(info)

    def persistent_load(self, pid):
        _, kind, key, _, _ = pid
        return self.record(f"data/{key}"), WIDTHS[kind]

    def find_class(self, module, name):
        return {"OrderedDict": OrderedDict, "_rebuild_tensor_v2": self.tensor}.get(name, Name(name))

    @staticmethod
    def tensor(storage, offset, size, strides, *_rest):
        content, width = storage
        places = [
            (offset + sum(map(operator.mul, index, strides))) * width for index in itertools.product(*map(range, size))
        ]
        return size, b"".join(content[place : place + width] for place in places)


def outcome(path, content):
    """What came of a damaged file."""
    path.write_bytes(content)
    try:
        found = read(path)
    except MscvtError as error:
        return "refused" if path.name in str(error) and str(error).isprintable() else "refused without a name"
    expected = {name: value for name, value in Independent(content).load().items() if isinstance(value, tuple)}
    return "read" if found == expected else "read otherwise"


def test_damaged_files_are_refused_or_read_as_independent_readers_do(tmp_path):
    chance = random.Random(7)
    outcomes = Counter(outcome(tmp_path / "x.pt", mutated(chance)) for _ in range(500))
    assert set(outcomes) == {"read", "refused"}
    assert min(outcomes.values()) > 50
