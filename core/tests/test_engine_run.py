"""Running a plan: every block once, units reported when they are whole, and who works at the same time."""

import signal
import threading
import time

import pytest
import torch

from mscvt.engine.run import _Queue, run_plan
from mscvt.layout.pairs import Loop, pair
from mscvt.plan.contents import Content, Copy, Plan, Unit
from mscvt.testing.in_memory import in_memory

SMALL, LARGE = 100, 1 << 18


class Sink:
    """Keeps what it is given, and says how many threads were in it at the same time."""

    def __init__(self, meanwhile=lambda block: None):
        self.bytes, self.most = {}, 0
        self._inside, self._lock, self._meanwhile = 0, threading.Lock(), meanwhile

    def put(self, block, runs):
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        self._meanwhile(block)
        taken = b"".join(map(bytes, runs))
        with self._lock:
            for target in block.content.targets:
                whole = self.bytes.setdefault(target, bytearray(block.content.numel))
                whole[block.start : block.start + block.numel] = taken
            self._inside -= 1
        return len(taken) * len(block.content.targets)


def make(sizes):
    """A plan of one unit for each pair of tensors, which have these sizes, and their sources."""
    sources = {f"source {number}": torch.randint(256, (size,), dtype=torch.uint8) for number, size in enumerate(sizes)}
    contents = [
        Content((f"{number}", f"{number} again"), "U8", (size,), (Copy(0, pair(0, 0, [Loop(size, 1, 1)])),), (name,))
        for number, (size, name) in enumerate(zip(sizes, sources, strict=True))
    ]
    units = [Unit(number, tuple(contents[at : at + 2])) for number, at in enumerate(range(0, len(contents), 2))]
    opened = {name: in_memory(tensor) for name, tensor in sources.items()}
    return Plan((), len(units), lambda: iter(units)), opened, [bytes(each.numpy()) for each in sources.values()]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_block_arrives_and_every_unit_is_reported_once(workers):
    plan, opened, expected = make([SMALL, 0, LARGE, 3, *[SMALL] * 40, LARGE, LARGE])
    sink, reported, moved, released = Sink(), [], [], []
    run_plan(
        plan,
        opened.__getitem__,
        sink,
        workers=workers,
        max_memory=workers << 16,
        finished=reported.extend,
        progress=moved.append,
        release=lambda: released.append(sum(moved)),
    )
    whole = {f"{number}{end}": data for number, data in enumerate(expected) for end in ("", " again") if data}
    assert sink.bytes == whole
    assert sorted(unit.number for unit in reported) == list(range(plan.unit_count))
    assert released == [sum(map(len, whole.values()))]


def test_only_targets_that_are_wanted_are_made_and_reported():
    plan, opened, expected = make([SMALL] * 4)
    sink, reported = Sink(), []
    wanted = {"1", "1 again", "2 again"}
    run_plan(plan, opened.__getitem__, sink, wanted=wanted.__contains__, finished=reported.extend)
    assert sink.bytes == {"1": expected[1], "1 again": expected[1], "2 again": expected[2]}
    made = [[content.targets for content in unit.contents] for unit in sorted(reported)]
    assert made == [[("1", "1 again")], [("2 again",)]]


def test_workers_take_turns_at_small_blocks():
    plan, opened, expected = make([SMALL] * 200)
    sink = Sink(lambda block: time.sleep(0.0005))  # others could come in
    run_plan(plan, opened.__getitem__, sink, workers=4)
    assert len(sink.bytes) == 2 * len(expected)
    assert sink.most == 1


def test_workers_do_not_wait_for_each_other_at_large_blocks():
    plan, opened, _ = make([LARGE] * 4)
    together = threading.Barrier(2)
    sink = Sink(lambda block: together.wait(60))
    run_plan(plan, opened.__getitem__, sink, workers=2)
    assert sink.most == 2


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_error_ends_the_run_and_its_unit_is_not_reported(size):
    plan, opened, _ = make([size] * 200)

    def fails(block):
        if block.content.targets[0] == "101":
            raise OSError("the disk is on fire")

    sink, reported, released = Sink(fails), [], []
    with pytest.raises(OSError, match="on fire"):
        run_plan(
            plan,
            opened.__getitem__,
            sink,
            workers=2,
            finished=reported.extend,
            release=lambda: released.append(None),
        )
    assert len(released) == 1
    numbers = [unit.number for unit in reported]
    assert 50 not in numbers
    assert len(set(numbers)) == len(numbers)
    for number in numbers:
        assert {f"{2 * number}", f"{2 * number + 1}"} <= sink.bytes.keys()


def test_a_worker_that_is_interrupted_leaves_the_rest_of_what_it_took(monkeypatch):
    plan, opened, expected = make([SMALL] * 40)
    interrupt, is_told = _Queue.interrupt, threading.Event()

    def tells(queue):
        interrupt(queue)
        is_told.set()

    def interrupts(block):
        if not is_told.is_set():
            signal.raise_signal(signal.SIGINT)
            assert is_told.wait(60)

    monkeypatch.setattr(_Queue, "interrupt", tells)
    sink = Sink(interrupts)
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, opened.__getitem__, sink, workers=1)
    for thread in threading.enumerate():
        if thread.name.startswith("mscvt-"):
            thread.join(60)
    assert sink.bytes == {"0": expected[0], "0 again": expected[0]}
