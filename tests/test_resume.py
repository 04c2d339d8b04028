"""Unfinished work and results that are there: what goes on, what is refused, what is replaced and when."""

import errno
import gc
import io
import json
import os
import shutil
from argparse import Namespace

import pytest
import torch
from torch.utils.serialization import config as serialization_config
from typer.testing import CliRunner

import mscvt.engine.sinks
from mscvt.cli.app import app
from mscvt.errors import MscvtError
from mscvt.jobs.conversion import Settings, run_conversion
from small_conversions import DIRECTIONS, convert, hidden, journalled, make_sources, prepare, tree

pytestmark = pytest.mark.usefixtures("no_sync")

OTHER_OPTIONS = {"hf2mg": {"noop_layers": (8, 9)}, "mg2hf": {"dtype": "fp32"}}


@pytest.fixture
def broken_off(sources, tmp_path, monkeypatch):
    """Break conversions off after some blocks."""

    def break_off(direction, target, **settings):
        put, count = mscvt.engine.sinks.FileSink.put, []

        def stops(self, block, data):
            count.append(block)
            if len(count) > 30:
                raise OSError(errno.EIO, "broken off")
            return put(self, block, data)

        with monkeypatch.context() as patched:
            patched.setattr(mscvt.engine.sinks.FileSink, "put", stops)
            with pytest.raises(MscvtError, match="broken off"):
                convert(direction, settings.pop("sources", sources), target, workers=1, **settings)
        assert journalled(target) > 0
        return target

    return break_off


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_same_command_goes_on_with_other_workers_and_memory(direction, sources, broken_off, tmp_path):
    target = broken_off(direction, tmp_path / "out")
    before = journalled(target)
    result = convert(direction, sources, target, workers=3, max_memory=1 << 20, resume=True)
    assert (result.resumed_tensors, result.is_complete) == (before, True)
    convert(direction, sources, tmp_path / "whole")
    assert tree(target) == tree(tmp_path / "whole")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_other_options_are_refused_and_the_work_kept(direction, sources, broken_off, tmp_path):
    target = broken_off(direction, tmp_path / "out")
    before = tree(hidden(target))
    other = prepare(direction, sources, **OTHER_OPTIONS[direction])
    for resume in (False, True):
        with pytest.raises(
            MscvtError, match="an unfinished conversion is there and differs from this one in"
        ) as caught:
            run_conversion(other, target, Settings(resume=resume))
        assert ("options" if direction == "hf2mg" else "dtype") in caught.value.message
        assert "--overwrite" in caught.value.hint
    assert tree(hidden(target)) == before
    result = run_conversion(other, target, Settings(overwrite=True))
    assert (result.resumed_tensors, result.is_complete) == (0, True)
    run_conversion(other, tmp_path / "whole", Settings())
    assert tree(target) == tree(tmp_path / "whole")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_conversion_that_failed_lets_go_of_its_source(direction, broken_off, tmp_path):
    sources = make_sources(tmp_path)
    gc.disable()  # nor does a collection have to come first
    try:
        broken_off(direction, tmp_path / "out", sources=sources)
        for path in sources[DIRECTIONS.index(direction)].rglob("*"):
            if path.suffix in (".safetensors", ".pt"):
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # fails where a writer would have to wait
    finally:
        gc.enable()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("change", ["modified later", "another size"])
def test_a_changed_source_is_refused_and_the_work_kept(direction, change, broken_off, tmp_path):
    sources = make_sources(tmp_path)
    target = broken_off(direction, tmp_path / "out", sources=sources)
    before = tree(hidden(target))
    pattern = "*.safetensors" if direction == "hf2mg" else "**/*.pt"
    changed = min(sources[DIRECTIONS.index(direction)].glob(pattern))
    status = changed.stat()
    if change == "modified later":
        os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    else:
        grow(changed)
        os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(MscvtError, match="differs from this one in source"):
        convert(direction, sources, target)
    assert tree(hidden(target)) == before
    assert convert(direction, sources, target, overwrite=True).resumed_tensors == 0


def grow(path):
    """Make a file longer that is read as before: spaces after the header's JSON, records further apart."""
    raw = path.read_bytes()
    if path.suffix == ".safetensors":
        length = int.from_bytes(raw[:8], "little")
        path.write_bytes((length + 8).to_bytes(8, "little") + raw[8 : 8 + length] + b" " * 8 + raw[8 + length :])
    else:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(io.BytesIO(raw), weights_only=True)
        with serialization_config.patch({"save.storage_alignment": 4096}):
            torch.save(state, path)
    assert path.stat().st_size > len(raw)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_target_that_is_not_empty_is_refused_and_not_mixed(direction, sources, tmp_path):
    target = tmp_path / "out"
    convert(direction, sources, target)
    before = tree(target)
    with pytest.raises(MscvtError, match="exists and is not empty") as caught:
        convert(direction, sources, target)
    assert "--overwrite" in caught.value.hint
    assert tree(target) == before
    assert not hidden(target).exists()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_overwrite_keeps_the_old_checkpoint_whole_until_the_end(direction, sources, broken_off, tmp_path):
    target = tmp_path / "out"
    older = {"hf2mg": {"target_tensor_parallel_size": 1, "target_expert_parallel_size": 1}, "mg2hf": {"dtype": "fp32"}}
    run_conversion(prepare(direction, sources, **older[direction]), target, Settings())
    old = tree(target)
    broken_off(direction, target, overwrite=True)
    assert tree(target) == old
    assert convert(direction, sources, target, overwrite=True).resumed_tensors > 0
    convert(direction, sources, tmp_path / "new")
    assert tree(target) == tree(tmp_path / "new")
    assert tree(target).keys() != old.keys()  # otherwise nothing had to be taken away
    assert not hidden(target).exists()


@pytest.mark.parametrize(
    ("direction", "added"),
    [
        ("hf2mg", "thesis.tex"),
        ("hf2mg", "iter_0000001/precious.txt"),
        ("hf2mg", "iter_0000001/mp_rank_00_000_000/distrib_optim.pt"),
        ("hf2mg", "iter_0000001/mp_rank_00_000_007/model_optim_rng.pt"),
        ("hf2mg", "iter_0000500/mp_rank_00_000_000/model_optim_rng.pt"),
        ("mg2hf", "thesis.tex"),
        ("mg2hf", "model_of_a_colleague.safetensors"),
        ("mg2hf", "model-old.safetensors/thesis"),
        ("mg2hf", "notes.json"),
    ],
)
def test_overwrite_refuses_a_folder_with_anything_else_in_it(direction, added, sources, tmp_path):
    target = tmp_path / "out"
    convert(direction, sources, target)
    (target / added).parent.mkdir(parents=True, exist_ok=True)
    (target / added).write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(MscvtError, match=rf"is no checkpoint .* \(it holds {added}\)"):
        convert(direction, sources, target, overwrite=True)
    assert tree(tmp_path) == before


def test_overwrite_believes_no_list_that_leaves_the_folder(sources, tmp_path):
    target = tmp_path / "out"
    convert("mg2hf", sources, target)
    (tmp_path / "elsewhere.safetensors").write_text("precious")
    index = target / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"]["more"] = "../elsewhere.safetensors"
    listed["weight_map"]["most"] = "notes.txt"
    index.write_text(json.dumps(listed))
    (target / "notes.txt").write_text("precious")
    with pytest.raises(MscvtError, match=r"it holds notes.txt"):
        convert("mg2hf", sources, target, overwrite=True)
    (target / "notes.txt").unlink()
    assert convert("mg2hf", sources, target, overwrite=True).is_complete
    assert (tmp_path / "elsewhere.safetensors").read_text() == "precious"


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_target_that_holds_what_is_read_or_lies_among_it_is_refused(direction, tmp_path):
    sources = make_sources(tmp_path / "both")
    before = tree(tmp_path)
    source = sources[DIRECTIONS.index(direction)]
    (tmp_path / "link").symlink_to(tmp_path / "both")
    inside = (source / "inside", tmp_path / "link" / source.name / "a" / "b")
    for target in (source, tmp_path / "both", tmp_path / "link", *inside):
        with pytest.raises(MscvtError, match="which is read"):
            convert(direction, sources, target, overwrite=True)
        with pytest.raises(MscvtError, match="which is read"):
            CliRunner().invoke(
                app,
                [direction, "--load-dir", str(source), "--save-dir", str(target), "--overwrite", "--debug"],
                catch_exceptions=False,
            )
    (tmp_path / "link").unlink()
    assert tree(tmp_path) == before


def test_a_folder_of_which_only_the_configuration_is_read_is_not_replaced(tmp_path):
    sources = make_sources(tmp_path / "both")
    before = tree(tmp_path)
    with pytest.raises(MscvtError, match="hf, which is read"):
        convert("mg2hf", sources, sources.hf, overwrite=True)
    assert tree(tmp_path) == before


def test_resume_without_unfinished_work_is_refused(sources, tmp_path):
    with pytest.raises(MscvtError, match="there is no unfinished conversion to resume"):
        convert("hf2mg", sources, tmp_path / "out", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_removed_working_directory_is_an_error_with_a_name(sources, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(MscvtError, match=r"No such file or directory|no such folder"):
        convert("hf2mg", sources, "out")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_can_not_be_written_is_an_error_with_its_name(code, sources, tmp_path, monkeypatch):
    mkdir = os.mkdir

    def refused(path, *rest, **more):
        if str(path).endswith(".mscvt"):
            raise OSError(code, os.strerror(code), str(path))
        mkdir(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(MscvtError, match=f"{hidden(tmp_path / 'out')}: can't be made: {os.strerror(code)}") as caught:
        convert("hf2mg", sources, tmp_path / "out")
    assert "must be writable" in caught.value.hint
    assert "kept" not in caught.value.hint
    assert list(tmp_path.iterdir()) == []
