"""`--verify`: what was written is read again before it gets its name."""

import pytest

import mscvt.engine.sinks
from mscvt.errors import MscvtError
from small_conversions import DIRECTIONS, convert, hidden, tree


def wrong(runs, place):
    """The same bytes but for one bit of the first (0) or last (-1) one; the source's own stay as they are."""
    copies = [run.copy() for run in runs]
    copies[place][place] ^= 1
    return copies


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_converting_with_verify_reads_everything_again(direction, sources, tmp_path):
    result = convert(direction, sources, tmp_path / "out", verify=True, sync_seconds=60.0)
    assert (result.verified, result.is_complete) == (True, True)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("place", [0, -1])
def test_a_byte_that_arrives_wrong_is_found_by_verify_and_nothing_is_left(
    direction, place, sources, tmp_path, monkeypatch
):
    put, count = mscvt.engine.sinks.FileSink.put, []

    def corrupts(self, block, runs):
        count.append(block)
        return put(self, block, wrong(runs, place) if len(count) == 50 else runs)

    with monkeypatch.context() as patched:
        patched.setattr(mscvt.engine.sinks.FileSink, "put", corrupts)
        with pytest.raises(MscvtError, match=r"what was written is not what should be there") as caught:
            convert(direction, sources, tmp_path / "out", verify=True, sync_seconds=60.0)
    block = count[49]
    element = block.start if place == 0 else block.start + block.numel - 1
    for target in block.content.targets:
        assert f"differs first at element {element}" in str(caught.value)
        assert str(target) in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not hidden(tmp_path / "out").exists()
    assert convert(direction, sources, tmp_path / "out", verify=True, sync_seconds=60.0).resumed_tensors == 0


def test_a_wrong_byte_in_a_part_discards_this_part_only(sources, tmp_path, monkeypatch):
    target = tmp_path / "out"
    convert("hf2mg", sources, target, only="pp=1", sync_seconds=60.0)
    before = tree(hidden(target) / "data")

    def corrupts(self, block, runs, put=mscvt.engine.sinks.FileSink.put):
        return put(self, block, wrong(runs, 0))

    with monkeypatch.context() as patched:
        patched.setattr(mscvt.engine.sinks.FileSink, "put", corrupts)
        with pytest.raises(MscvtError, match="what was written is not what should be there"):
            convert("hf2mg", sources, target, only="pp=0", verify=True, sync_seconds=60.0)
    assert tree(hidden(target) / "data") == before
    convert("hf2mg", sources, target, only="pp=0", verify=True, sync_seconds=60.0)
    assert tree(target) == tree(sources.mg)
