"""Comparing blocks with what exists: where a tensor differs, whatever runs its bytes come in."""

import numpy as np
import pytest
import torch

from mscvt.engine.blocks import Block
from mscvt.engine.sinks import CompareSink
from mscvt.plan.contents import Content
from mscvt.testing.in_memory import in_memory

ELEMENTS = 40


@pytest.mark.parametrize("steps", [[40], [10, 30], [1, 2, 3, 34], [8] * 5])
@pytest.mark.parametrize("start", [0, 7])
def test_differences_are_counted_from_the_start_of_the_tensor(steps, start):
    content = Content(("t", "copy"), "BF16", (start + ELEMENTS,), (), ())
    ours = torch.arange(start + ELEMENTS, dtype=torch.bfloat16)
    theirs = ours.clone()
    theirs[[start + 12, start + 35]] += torch.tensor([2, 4], dtype=torch.bfloat16)
    existing = {"t": in_memory(theirs), "copy": in_memory(ours)}
    ends = np.cumsum(steps) * 2
    runs = np.split(ours[start:].view(torch.uint8).numpy(), ends[:-1])
    sink = CompareSink(existing.__getitem__)
    assert sink.put(Block(content, start, ELEMENTS), iter(runs)) == 2 * 2 * ELEMENTS
    assert list(sink.differences) == ["t"]
    found = sink.differences["t"]
    assert (found.first, found.elements, found.largest, found.reach) == (start + 12, 2, 4.0, start + 35.0)
