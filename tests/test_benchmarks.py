"""The benchmarks run and report what they say they do; their figures are for people, not for tests."""

import importlib
import json
import sys
from math import prod
from pathlib import Path

import pytest
from safetensors import safe_open

from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.plugins.registry import load_registry

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def benchmark(name):
    return importlib.import_module(name)


def run_of(name, tmp_path, *arguments):
    folder, output = tmp_path / "work", tmp_path / "result.json"
    folder.mkdir()
    benchmark(name).main([*arguments, "--folder", str(folder), "--output", str(output)])
    assert not list(folder.iterdir())
    return json.loads(output.read_text())


def test_speed_reports_every_figure_of_every_direction_for_a_tiny_model(tmp_path):
    report = run_of("speed", tmp_path, "--scenario", "tiny", "--rounds", "1", "--workers", "1")
    assert report["workers"] == 1
    assert report["machine"].keys() == {"cores", "python", "system", "file_system"}
    source = report["scenarios"]["tiny"]["source_bytes"]
    for direction in benchmark("speed").DIRECTIONS:
        found = report["scenarios"]["tiny"][direction]
        (only,) = found["rounds"]
        assert found["seconds"] == only["total"] > only["converting"] > 0
        assert found["ratio"] == only["total"] / only["copy"] > found["ratio_without_start"]
        assert found["synced_copy_seconds"] >= found["copy_seconds"] > 0
        assert found["ratio_processor"] == only["processor"] / only["copy_processor"] > 1
        assert found["written_bytes"] > source
        assert found["private_bytes"] > 8 << 20
        assert len(found["ratios"]) == 1


def test_sources_reports_every_kind_beside_a_copy(capsys):
    benchmark("sources").main(["--rows", "1024", "--columns", "512", "--rounds", "3"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["copy", "FP8 to bf16", "FP4 to bf16", "fp32 to bf16", "bf16 to fp32", "compare"]
    assert all(float(speed) > 0 and float(ratio) > 0 for _, speed, ratio in rows)


def test_merging_reports_a_copy_and_every_rank(capsys):
    benchmark("merging").main(["--rows", "8", "--columns", "6", "--ranks", "1", "2", "--rounds", "1"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:5]]
    assert [row[0] for row in rows] == ["| copy", "| merge, rank 1", "| merge, rank 2"]


def test_figures_of_all_benchmarks_stand_beside_the_committed_ones(tmp_path, monkeypatch):
    figures, ways = benchmark("figures"), benchmark("speed").DIRECTIONS
    reports = {
        "speed": {
            "scenarios": {
                "tiny": {"source_bytes": 1, **{way: {"ratio_processor": 1.5} for way in ways}},
                "tiny-tensors": {way: {"rounds": [{"processor": 0.7}, {"processor": 0.6}]} for way in ways},
            }
        },
        "planning": {
            "models": {"tiny": {"hf2mg": {"processor": 4.0}, "mg2hf": {"processor": 5.0}}},
        },
    }
    for name, report in reports.items():

        def write(arguments, report=report):
            Path(arguments[-1]).write_text(json.dumps(report))

        monkeypatch.setattr(benchmark(name), "main", write)
    monkeypatch.setattr(benchmark("starts"), "measure", lambda folder, rounds: {"python": 0.5, "plan hf2mg": 2.5})
    found = figures.measure(tmp_path, (), (), 1, ("--rows", "1024", "--columns", "512", "--rounds", "2"))
    assert not list(tmp_path.iterdir())
    assert (found["mg2hf, of cp"], found["planning mg2hf, of python's start"]) == (1.5, 10)
    assert found["plan hf2mg, of python's start"] == 5
    assert found["mg2hf of 10,000 tiny tensors, of python's start"] == 1.2
    assert {"FP8 to bf16, of a copy", "merge, rank 16, of a copy"} <= found.keys()
    assert all(figure > 0 for figure in found.values())
    rows = figures.table({"a": 3.0, "b": 1.0}, {"a": 2.0}).splitlines()
    assert rows[2:] == ["| a | 2.00 | 3.00 | 1.50 |", "| b |  | 1.00 |  |"]


def test_starts_reports_every_command_beside_python(tmp_path, capsys):
    benchmark("starts").main(["--folder", str(tmp_path), "--rounds", "1"])
    assert not list(tmp_path.iterdir())
    rows = {
        row[0]: row[1:] for row in (line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:])
    }
    asked = benchmark("starts").commands(*map(Path, ("hf", "mg", "new")))
    assert [*rows] == ["python", *asked]
    assert {"--help", "hf2mg --help", "plugins", "check", "plan hf2mg", "mg2hf --dry-run"} <= asked.keys()
    assert all(float(rows[name][1]) > 1 for name in asked)


def test_planning_reports_both_directions_for_a_tiny_model(tmp_path):
    report = run_of("planning", tmp_path, "--model", "tiny")["models"]["tiny"]
    model = benchmark("models").PLANNING["tiny"]()
    assert report["hf2mg"]["files"] == 2 * 2 * 2
    assert report["hf2mg"]["bytes"] > report["mg2hf"]["bytes"] == model.nbytes
    assert report["mg2hf"]["tensors"] == len(model.tensors)
    assert report["source_files"] == 1
    assert report["allocate_seconds"] > 0
    for direction in ("hf2mg", "mg2hf"):
        assert report[direction]["seconds"] > 0
        assert report[direction]["private_bytes"] > 8 << 20  # torch, not needed, would take 100


def test_full_size_models_have_as_many_parameters_as_the_released_ones():
    models = benchmark("models").PLANNING
    assert models["qwen3-235b"]().nbytes == 470_187_269_120  # total_size in the index of Qwen/Qwen3-235B-A22B
    tensors = models["deepseek-v3"]().tensors
    main = sum(prod(shape) for name, shape in tensors.items() if not name.startswith("model.layers.61."))
    assert main == 671_026_419_200
    assert models["deepseek-v3"]().nbytes == 2 * 684_489_845_504


def test_measured_models_fit_into_four_gigabytes_beside_a_copy_of_their_shards(tmp_path):
    for name, model in benchmark("models").SPEED.items():
        source = tmp_path / name
        benchmark("checkpoints").write_checkpoint(source, model(1), sparse=True)
        shards = prepare_to_megatron(Request(source, model(1).options), load_registry()).plan.nbytes
        assert model(1).nbytes <= shards <= 2_000_000_000, name
        assert model(2).nbytes > 1.8 * model(1).nbytes, name


def test_checkpoint_with_weights_differs_from_tensor_to_tensor_and_is_finite(tmp_path):
    model = benchmark("models").SPEED["tiny"](1)
    benchmark("checkpoints").write_checkpoint(tmp_path / "hf", model, limit=100_000)
    files = sorted((tmp_path / "hf").glob("*.safetensors"))
    assert len(files) == 3
    found = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == dict(model.tensors)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert len({tensor.flatten()[:8].float().numpy().tobytes() for tensor in found.values()}) == len(found)


def test_sparse_checkpoint_takes_no_room_for_its_weights(tmp_path):
    model = benchmark("models").SPEED["qwen3-8b"](1)
    size = benchmark("checkpoints").write_checkpoint(tmp_path / "hf", model, sparse=True)
    assert size > model.nbytes
    assert benchmark("planning").blocks(tmp_path / "hf") < 1 << 20


def test_memory_of_a_child_process_counts_too():
    child = "import time; held = bytearray(48 << 20); time.sleep(1)"
    parent = f"import subprocess, sys; held = bytearray(24 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    measured = benchmark("memory").run([sys.executable, "-c", parent])
    assert 72 << 20 <= measured.anonymous < 144 << 20
    assert measured.seconds >= 1


def test_failing_command_ends_the_benchmark_with_its_message():
    with pytest.raises(SystemExit, match="the disk is on fire"):
        benchmark("memory").run([sys.executable, "-c", "raise SystemExit('the disk is on fire')"])


def test_cluster_expects_of_nodes_what_their_connections_and_the_storage_carry():
    minutes = benchmark("cluster").expected_minutes
    assert minutes(1, 2.0, 100.0, 0.0) == pytest.approx(3943 / 2 / 60)
    assert minutes(8, 2.0, 100.0, 0.0) == pytest.approx(3943 / 16 / 60)
    assert minutes(8, 2.0, 4.0, 30.0) == pytest.approx((30 + 3943 / 4) / 60)
