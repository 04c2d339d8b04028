"""Blocks: whatever the limit, every element of a content is made once, and is what the copies say."""

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mscvt.engine.blocks import Block, Gatherer, blocks_of
from mscvt.layout.pairs import Loop, Pair, pair
from mscvt.plan.contents import Content, Copy
from mscvt.testing.in_memory import in_memory

DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn}
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@st.composite
def contents(draw):
    """A content of one or two runs, each a transposed source that one axis divides into copies."""
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    copies, sources, expected, base = [], [], [], 0
    for _ in range(draw(st.integers(1, 2))):
        sizes = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
        steps = [int(np.prod(sizes[axis + 1 :])) for axis in range(len(sizes))]
        axis = draw(st.integers(0, len(sizes) - 1))
        marks = sorted({0, sizes[axis], *draw(st.lists(st.integers(0, sizes[axis]), max_size=2))})
        order = draw(st.permutations(range(len(sizes))))
        whole = np.zeros(sizes, np.int64)
        for start, end in pairwise(marks):
            extents = tuple(end - start if a == axis else size for a, size in enumerate(sizes))
            begin = base + start * steps[axis]
            if draw(st.integers(0, 4)) == 0:
                zeros = [Loop(extent, step, 0) for extent, step in zip(extents, steps, strict=True)]
                copies.append(Copy(None, pair(begin, 0, zeros)))
                continue
            lead = draw(st.integers(0, 3))
            source = np.arange(lead + int(np.prod(extents))) + 1 + 1000 * len(sources)
            held = source[lead:].reshape([extents[a] for a in order])
            strides, step = [0] * len(sizes), 1
            for a in reversed(order):
                strides[a] = step
                step *= extents[a]
            where = tuple(slice(start, end) if a == axis else slice(None) for a in range(len(sizes)))
            whole[where] = held.transpose(np.argsort(order))
            loops = [Loop(*loop) for loop in zip(extents, steps, strides, strict=True)]
            copies.append(Copy(len(sources), pair(begin, lead, loops)))
            sources.append(source)
        expected.append(whole.ravel())
        base += whole.size
    names = tuple(f"source {number}" for number in range(len(sources)))
    content = Content(("target",), dtype, (base,), tuple(draw(st.permutations(copies))), names)
    return content, dict(zip(names, sources, strict=True)), np.concatenate(expected)


def as_bits(numbers, dtype):
    """Numbers as the bits of a dtype, so that any bytes, NaN among them, must come through."""
    width = DTYPES[dtype].itemsize
    return torch.from_numpy(np.asarray(numbers)).to(BITS[width]).view(DTYPES[dtype])


@given(contents(), st.integers(1, 400), st.integers(1, 40), st.integers(8, 40))
def test_blocks_of_any_size_make_the_whole_content(drawn, limit, least_run, longest_run):
    content, sources, numbers = drawn
    opened = {name: in_memory(as_bits(values, content.dtype)) for name, values in sources.items()}
    width = DTYPES[content.dtype].itemsize
    result = np.full(len(numbers) * width, 0xEE, np.uint8)
    filled = np.zeros(len(numbers), int)
    end = 0
    for block in blocks_of(content, limit):
        assert block.numel * width <= max(limit, width)
        assert block.start == end
        end = block.start + block.numel
        filled[block.start : end] += 1
        buffer = np.full(block.numel * width + 3, 0x77, np.uint8)
        with patch("mscvt.engine.blocks._LONGEST_RUN", longest_run):
            runs = list(Gatherer(buffer, opened.__getitem__, least_run).bytes_of(block))
        result[block.start * width : end * width] = np.concatenate(runs)
        assert (buffer[block.numel * width :] == 0x77).all(), "bytes behind the block were written"
    assert (filled == 1).all()
    assert np.array_equal(result, as_bits(numbers, content.dtype).view(torch.uint8).numpy())


def of(dtype, shape, *loops, source=0):
    """A content with one copy that goes straight through."""
    walk = Pair(0, 0, tuple(Loop(*loop) for loop in loops))
    return Content(("t",), dtype, shape, (Copy(source, walk),), ("s",))


def test_content_without_elements_has_no_blocks():
    assert list(blocks_of(Content(("t",), "BF16", (0, 3), (), ()), 8)) == []


def test_limit_below_one_element_makes_blocks_of_one():
    content = of("F64", (2, 3), (6, 1, 1))
    assert [(block.start, block.numel) for block in blocks_of(content, 1)] == [(n, 1) for n in range(6)]


@pytest.mark.parametrize(("limit", "blocks"), [(24, [6]), (16, [3, 3]), (12, [3, 3]), (8, [2, 2, 2]), (1000, [6])])
def test_blocks_end_where_rows_end_where_they_fit(limit, blocks):
    content = of("F32", (2, 3), (2, 3, 1), (3, 1, 2))
    assert [block.numel for block in blocks_of(content, limit)] == blocks


def test_block_that_begins_in_the_middle_of_a_copy_reads_from_there():
    content = of("F32", (12,), (3, 4, 1), (4, 1, 3))
    source = in_memory(torch.arange(12, dtype=torch.float32))
    expected = torch.arange(12, dtype=torch.float32).view(4, 3).T.flatten()
    for start in range(12):
        for numel in range(1, 13 - start):
            (made,) = Gatherer(np.empty(48, np.uint8), lambda _: source).bytes_of(Block(content, start, numel))
            assert torch.equal(torch.from_numpy(made).view(torch.float32), expected[start : start + numel])


def test_source_of_another_dtype_is_converted():
    content = of("BF16", (2,), (2, 1, 1))
    (block,) = blocks_of(content, 64)
    source = torch.tensor([1.00390625, -3.0])
    (made,) = Gatherer(np.empty(64, np.uint8), lambda _: in_memory(source)).bytes_of(block)
    assert torch.equal(torch.from_numpy(made).view(torch.bfloat16), source.to(torch.bfloat16))


def in_turns(first, second):
    """Three elements of one source, three of another, and so on; the last six of the first and the first six."""
    loops = (Loop(2, 6, 3), Loop(3, 1, 1))
    return Content(("t",), "BF16", (12,), (Copy(second, Pair(3, 0, loops)), Copy(first, Pair(0, 6, loops))), ("a", "b"))


@pytest.mark.parametrize("least", [6, 100])
def test_runs_of_another_dtype_are_converted_a_few_elements_at_a_time(least):
    content = in_turns(1, 0)
    sources = {"a": torch.arange(6) + 0.123, "b": (torch.arange(12) * 3.21).half()}
    expected = torch.cat([sources["b"][6:9], sources["a"][:3], sources["b"][9:], sources["a"][3:]]).bfloat16()
    (block,) = blocks_of(content, 64)
    with patch("mscvt.engine.blocks._LONGEST_RUN", 4):
        runs = Gatherer(np.empty(24, np.uint8), lambda name: in_memory(sources[name]), least).bytes_of(block)
        made = [run.copy() for run in runs]  # each is there until the next
    assert len(made) == (8 if least == 6 else 1)
    assert torch.equal(torch.from_numpy(np.concatenate(made)).view(torch.bfloat16), expected)


def test_long_runs_are_taken_from_their_sources_in_order_and_short_ones_gathered():
    content = in_turns(0, 1)
    sources = {"a": torch.arange(12).bfloat16(), "b": torch.arange(100, 106).bfloat16()}
    expected = torch.tensor([6, 7, 8, 100, 101, 102, 9, 10, 11, 103, 104, 105]).bfloat16()
    (block,) = blocks_of(content, 64)
    buffer = np.empty(64, np.uint8)
    for least, longest, count in ((6, 6, 4), (7, 9, 4), (8, 6, 1), (6, 4, 8), (6, 2, 12)):  # in bytes; a run has 6
        with patch("mscvt.engine.blocks._LONGEST_RUN", longest):
            runs = list(Gatherer(buffer, lambda name: in_memory(sources[name]), least).bytes_of(block))
        assert len(runs) == count
        assert torch.equal(torch.from_numpy(np.concatenate(runs)).view(torch.bfloat16), expected)
        held = [source.view(torch.uint8).numpy() for source in sources.values()] if count > 1 else [buffer]
        assert all(any(np.shares_memory(run, memory) for memory in held) for run in runs)


@pytest.mark.parametrize("most", [1, 1024])
def test_contents_that_are_filled_alike_have_elements_of_their_own(most):
    copies = in_turns(0, 1).copies
    others = in_turns(1, 0).copies
    sources = {"a": torch.arange(12), "b": torch.arange(100, 112), "c": torch.arange(200, 212)}
    buffer = np.empty(96, np.uint8)
    gatherer = Gatherer(buffer, lambda name: in_memory(sources[name].to(dtype)), 100)
    for dtype in (torch.bfloat16, torch.float32, torch.bfloat16):
        for filled, names in ((copies, "ab"), (copies, "cb"), (others, "ab"), (copies, "ac")):
            content = Content(("t",), {2: "BF16", 4: "F32"}[dtype.itemsize], (12,), filled, tuple(names))
            with patch("mscvt.engine.blocks._MOST_WAYS", most):
                (made,) = gatherer.bytes_of(Block(content, 0, 12))
            last, first = (sources[name] for name in (names if filled is copies else names[::-1]))
            expected = torch.cat([last[6:9], first[:3], last[9:], first[3:6]]).to(dtype)
            assert torch.equal(torch.from_numpy(made).view(dtype), expected)
