"""What a conversion does to the process that it runs in, and needs of it."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mscvt.dialects.options import Options
from mscvt.engine.sinks import FileSink
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.plugins.registry import load_registry
from mscvt.tensors.computing import _Process
from mscvt.testing import save_huggingface, source_tensors
from small_configurations import LLAMA
from small_conversions import DIRECTIONS, PARTS, convert, prepare, tree

pytestmark = pytest.mark.usefixtures("no_sync")

SMALL = Settings(workers=2, max_memory=1 << 17, sync_seconds=0.0)
"""Small buffers, and records that are written after every unit."""


@pytest.fixture(autouse=True)
def two_threads():
    """What conversions have to leave as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of_new_threads():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_conversions_at_the_same_time_in_one_process_give_what_they_give_alone(sources, tmp_path):
    before = torch.get_num_threads(), threads_of_new_threads(), threading.active_count()
    jobs = [(direction, tmp_path / f"{direction}{number}") for number in range(2) for direction in DIRECTIONS]
    conversions = [
        prepare(direction, sources, dtype="fp32") for direction, _ in jobs
    ]  # which replaces the planner for a moment
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job, conversion: run_conversion(conversion, job[1], SMALL), jobs, conversions))
    assert (torch.get_num_threads(), threads_of_new_threads(), threading.active_count()) == before
    for direction in DIRECTIONS:
        run_conversion(prepare(direction, sources, dtype="fp32"), tmp_path / "alone" / direction, SMALL)
        for number in range(2):
            assert tree(tmp_path / f"{direction}{number}") == tree(tmp_path / "alone" / direction)


def test_a_thread_whose_first_use_of_torch_is_beside_a_conversion_leaves_the_number_of_threads_alone(sources, tmp_path):
    before = torch.get_num_threads(), threads_of_new_threads()
    assert before == (2, 2), "with one thread nothing could be left behind"
    inner, outer = prepare("hf2mg", sources, dtype="fp32"), prepare("mg2hf", sources, dtype="fp32")
    has_begun, may_end, threads = threading.Event(), threading.Event(), []

    def lasts(nbytes):
        if nbytes:
            has_begun.set()
            assert may_end.wait(30)

    def begins(nbytes):
        if nbytes and not threads:
            how = replace(SMALL, progress=lasts)
            threads.append(threading.Thread(target=run_conversion, args=(inner, tmp_path / "inner", how)))
            threads[0].start()
            assert has_begun.wait(30)

    run_conversion(outer, tmp_path / "outer", replace(SMALL, workers=1, progress=begins))
    may_end.set()
    threads[0].join()
    assert (tmp_path / "inner").exists()
    assert (torch.get_num_threads(), threads_of_new_threads()) == before


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_parts_in_threads_of_one_process_complete_the_whole(direction, sources, tmp_path):
    conversions = [prepare(direction, sources) for _ in PARTS[direction]]
    settings = [replace(SMALL, only=only) for only in PARTS[direction]]
    with ThreadPoolExecutor(len(conversions)) as pool:
        results = list(pool.map(run_conversion, conversions, [tmp_path / "out"] * len(conversions), settings))
    assert [result.is_complete for result in results].count(True) == 1
    convert(direction, sources, tmp_path / "alone")
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_torch_has_as_many_threads_after_a_conversion_as_before(sources, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen = []
    try:
        settings = replace(SMALL, progress=lambda nbytes: seen.append(torch.get_num_threads()))
        run_conversion(prepare("hf2mg", sources, dtype="fp32"), tmp_path / "out", settings)
        assert (torch.get_num_threads(), threads_of_new_threads()) == (3, 3)
    finally:
        torch.set_num_threads(before)
    assert set(seen[1:]) == {1}  # the workers' own; the first call is the caller's


def test_seconds_are_those_without_the_loading_of_torch(sources, tmp_path, monkeypatch):
    now = [0]

    def passes(seconds):
        now[0] += seconds

    monkeypatch.setattr("mscvt.jobs.conversion.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("mscvt.tensors.computing.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("mscvt.tensors.computing._PROCESS", _Process())
    monkeypatch.setattr("mscvt.tensors.computing._quiet", lambda: passes(1000))
    settings = replace(SMALL, workers=1, progress=lambda nbytes: passes(1))
    result = run_conversion(prepare("hf2mg", sources, dtype="fp32"), tmp_path / "out", settings)
    assert now[0] > 1001
    assert result.seconds == now[0] - 1000


def private_bytes():
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise AssertionError("the system does not say")


def test_buffers_take_no_more_memory_than_allowed(tmp_path):
    """A tensor of 32 MiB is far larger than the buffers: what is copied at once must not be."""
    config = {**LLAMA, "num_hidden_layers": 1, "hidden_size": 256, "vocab_size": 1 << 16}
    registry = load_registry()
    save_huggingface(tmp_path / "hf", config, source_tensors(registry.family("llama2"), config))
    conversion = prepare_to_megatron(Request(tmp_path / "hf", Options()), registry)
    run_conversion(conversion, tmp_path / "first", Settings())  # so that what is loaded late is there
    seen = []
    settings = Settings(workers=2, max_memory=2 << 20, progress=lambda nbytes: seen.append((nbytes, private_bytes())))
    before = private_bytes()
    run_conversion(conversion, tmp_path / "out", settings)
    assert sum(nbytes for nbytes, _ in seen) > 64 << 20
    assert max(nbytes for nbytes, _ in seen[1:]) <= 1 << 20
    assert max(taken for _, taken in seen) - before < 12 << 20


def test_verifying_reads_from_the_disk_and_not_from_what_was_just_written(sources, tmp_path, monkeypatch):
    forgotten = []

    def advise(descriptor, start, length, what):
        forgotten.append((os.readlink(f"/proc/self/fd/{descriptor}"), start, length, what))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    convert("hf2mg", sources, tmp_path / "out", verify=True)
    files = {file.path for file in prepare("hf2mg", sources).plan.files}
    data = tmp_path / ".out.mscvt" / "data"
    assert sorted(forgotten) == sorted((str(data / file), 0, 0, os.POSIX_FADV_DONTNEED) for file in files)


def test_verifying_does_without_advice_where_the_system_takes_none(sources, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise")
    assert convert("hf2mg", sources, tmp_path / "out", verify=True).verified


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_disk_has_the_space_of_all_files_before_anything_is_written(direction, sources, tmp_path, monkeypatch):
    taken, data = [], tmp_path / ".out.mscvt" / "data"

    def puts(self, block, data_, put=FileSink.put):
        if not taken:
            taken.append({path: path.stat().st_blocks * 512 for path in data.rglob("*") if path.is_file()})
        return put(self, block, data_)

    monkeypatch.setattr(FileSink, "put", puts)
    convert(direction, sources, tmp_path / "out", workers=1)
    sizes = {data / file.path: file.nbytes for file in prepare(direction, sources).plan.files}
    assert taken[0].keys() == sizes.keys()
    assert all(taken[0][path] >= nbytes for path, nbytes in sizes.items())


def test_settings_without_callbacks_can_be_sent_to_another_process():
    settings = Settings(workers=2, only="pp=1")
    assert pickle.loads(pickle.dumps(settings)) == settings
