"""Conversions in parts on a Ray cluster of three nodes, one of which is killed in the middle."""

import json
import os
import re
import shutil
import socket
import sys
from functools import partial
from pathlib import Path

import pytest

from command_line import run_main
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.executors.ray_tasks import ray_cluster
from mscvt.jobs.parts import convert_in_parts
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.prepared import Interrupted, Settings
from mscvt.jobs.request import Request
from mscvt.plugins.registry import load_registry
from ray_conversions import prepare_slow, prepare_small_files, reads
from small_conversions import OPTIONS, convert, hidden, tree

pytestmark = pytest.mark.xdist_group("ray")
FLAGS = [*("--tp", "2"), *("--pp", "2"), *("--ep", "4"), "--moe-grouped-gemm"]
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        from ray.cluster_utils import Cluster

        quick = {
            "health_check_initial_delay_ms": 0,
            "health_check_period_ms": 1000,
            "health_check_failure_threshold": 2,
        }
        head = {**NODE, "include_dashboard": False, "_system_config": quick}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(**NODE, wait=False)
        cluster.wait_for_nodes()
        with ray_cluster(cluster.address):
            yield cluster
        cluster.shutdown()


def on_ray(cluster, *words):
    return run_main(*words, "--executor", "ray", "--ray-address", cluster.address)


def test_parts_on_three_nodes_give_the_bytes_of_one_process(cluster, sources, tmp_path):
    outcome = on_ray(cluster, "hf2mg", "--load-dir", sources.hf, "--save-dir", tmp_path / "mg", *FLAGS, "--verify")
    assert outcome.code == 0, outcome.err
    assert tree(tmp_path / "mg") == tree(sources.mg)
    assert not hidden(tmp_path / "mg").exists()
    assert "verified: every byte was read again" in outcome.out


def test_parts_give_the_same_on_the_way_back_and_to_other_ranks(cluster, sources, tmp_path):
    convert("mg2hf", sources, tmp_path / "whole", sync_seconds=60.0)
    request = Request(sources.mg, Options(), hf_cfg_dir=sources.hf)
    conversion = prepare_small_files(request, load_registry())
    announced, moved = [], []
    settings = Settings(started=lambda what, nbytes: announced.append(nbytes), progress=moved.append)
    with ray_cluster(None) as executor:
        result = convert_in_parts(conversion, prepare_small_files, request, tmp_path / "hf", settings, executor)
    assert tree(tmp_path / "hf") == tree(tmp_path / "whole")
    assert result.is_complete
    assert [sum(moved)] == announced == [result.nbytes] == [result.written]

    back = ["mg2mg", "--load-dir", sources.mg, "--save-dir"]
    assert run_main(*back, tmp_path / "alone", "--tp", "4", "--pp", "1").code == 0
    outcome = on_ray(cluster, *back, tmp_path / "together", "--tp", "4", "--pp", "1")
    assert outcome.code == 0, outcome.err
    assert tree(tmp_path / "together") == tree(tmp_path / "alone")


def test_comparison_in_parts_finds_what_one_process_finds(cluster, sources, tmp_path):
    shutil.copytree(sources.mg, tmp_path / "mg")
    both = ["verify", "--hf", sources.hf, "--mg", tmp_path / "mg"]
    assert json.loads(on_ray(cluster, *both, "--json").out)["is_equal"] is True
    for shard in sorted(tmp_path.rglob("*.pt"))[::5]:
        with shard.open("r+b") as file:
            file.seek(shard.stat().st_size // 2)
            file.write(b"\xff\x01" * 8)
    alone, together = run_main(*both), on_ray(cluster, *both)
    assert alone.code == together.code == 1
    assert "differs:" in alone.out
    assert re.sub(r"in [\d.]+ s", "", together.out) == re.sub(r"in [\d.]+ s", "", alone.out)


def test_what_a_part_refuses_ends_the_job_with_its_message_and_what_is_done_is_kept(cluster, sources, tmp_path):
    request = Request(tmp_path / "hf", OPTIONS)
    shutil.copytree(sources.hf, request.load_dir)
    conversion = prepare_to_megatron(request, load_registry())
    weights = min(request.load_dir.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    with ray_cluster(None) as executor:
        run = partial(convert_in_parts, conversion, prepare_to_megatron, request, tmp_path / "mg", Settings(), executor)
        with pytest.raises(MscvtError, match="its tensors end at byte"):
            run()
    assert not (tmp_path / "mg").exists()


def test_ctrl_c_ends_the_parts_and_the_same_command_goes_on_without_a_cluster(cluster, sources, tmp_path):
    request = Request(sources.hf, OPTIONS)
    conversion = prepare_slow(request, load_registry())

    def interrupt(nbytes):
        raise KeyboardInterrupt

    settings = Settings(workers=1, sync_seconds=0.0, progress=interrupt)
    with ray_cluster(None) as executor, pytest.raises(Interrupted, match="the same command goes on from there"):
        convert_in_parts(conversion, prepare_slow, request, tmp_path / "mg", settings, executor)
    assert not (tmp_path / "mg").exists()
    result = convert("hf2mg", sources, tmp_path / "mg", resume=True)
    assert result.resumed_tensors > 0
    assert tree(tmp_path / "mg") == tree(sources.mg)


def test_the_part_of_a_node_that_was_killed_goes_on_from_its_record_on_another(cluster, sources, tmp_path):
    request = Request(sources.hf, OPTIONS)
    log = sources.hf.parent
    before = len(reads(log))
    killed = []

    def experts(node):
        """What a node has read of that which is in one part alone, in order."""
        names = [read.name for read in reads(log)[before:] if (read.node == node) and ".experts." in read.name]
        return list(dict.fromkeys(names))

    def kill(nbytes):
        """Kill a node that is at work, when its part has noted something."""
        for node in cluster.worker_nodes:
            if not killed and len(experts(node.node_id)) > 20:
                killed.append(node.node_id)
                cluster.remove_node(node, allow_graceful=False)
                return

    conversion = prepare_slow(request, load_registry())
    settings = Settings(workers=1, sync_seconds=0.0, progress=kill)
    with ray_cluster(None) as executor:
        result = convert_in_parts(conversion, prepare_slow, request, tmp_path / "mg", settings, executor)
    assert killed
    assert result.is_complete
    assert tree(tmp_path / "mg") == tree(sources.mg)
    others = {read.node for read in reads(log)[before:]} - set(killed)
    assert not set(experts(killed[0])[:4]) & {name for node in others for name in experts(node)}


def test_a_cluster_that_is_not_there_and_options_that_contradict_are_refused(sources, tmp_path, monkeypatch):
    words = ["hf2mg", "--load-dir", sources.hf, "--save-dir", tmp_path / "mg", *FLAGS]
    alone = run_main(*words, "--ray-address", "auto")
    assert "--ray-address is given and --executor ray is not" in alone.err
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and doesn't listen
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        lost = run_main(*words, "--executor", "ray", "--ray-address", address)
    assert f"there is no cluster at {address}: " in lost.err
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = run_main(*words, "--executor", "ray")
    assert "Ray is not installed" in outcome.err
    assert "pip install 'mscvt[ray]'" in outcome.err
    assert alone.code == lost.code == outcome.code == 1
    assert not (tmp_path / "mg").exists()
