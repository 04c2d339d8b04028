"""The scripts for arrays of jobs, run as Slurm would run them, in plain processes."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from small_conversions import hidden, make_sources, tree

SCRIPTS = Path(__file__).parents[1] / "examples" / "slurm"
FLAGS = [
    *("--target-tensor-parallel-size", "2"),
    *("--target-pipeline-parallel-size", "2"),
    *("--target-expert-parallel-size", "4"),
    "--moe-grouped-gemm",
]
PROGRAM = f"#!/bin/sh\nexec {sys.executable} -m mscvt"
ECHO = "#!/bin/sh\necho"


def array(script, count, program, folder, *words, **variables):
    """All jobs of an array at the same time; returns what each of them printed."""
    (folder / "bin").mkdir(exist_ok=True)
    mscvt = folder / "bin" / "mscvt"
    mscvt.write_text(f'{program} "$@"\n')
    mscvt.chmod(0o755)
    path = f"{mscvt.parent}{os.pathsep}{os.environ['PATH']}"
    stated = {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_CPUS_PER_TASK": "2"}
    jobs = [
        subprocess.Popen(
            ["bash", SCRIPTS / script, *words],
            env={**stated, **variables, "SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    said = [job.communicate(timeout=120)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * count
    return said


def test_array_of_stages_gives_the_bytes_of_one_run(tmp_path):
    sources = make_sources(tmp_path)
    target = tmp_path / "out"
    said = array("hf2mg.sh", 2, PROGRAM, tmp_path, *FLAGS, SOURCE=str(sources.hf), TARGET=str(target))
    assert tree(target) == tree(sources.mg)
    assert not hidden(target).exists()
    assert sum("pass to the training script" in each for each in said) == 1


@pytest.mark.parametrize(("files", "jobs"), [(7, 3), (2, 4), (1, 1), (12, 4)])
def test_array_on_the_way_back_divides_all_files(files, jobs, tmp_path):
    variables = {"SOURCE": "mg", "TARGET": "hf", "FILES": str(files)}
    said = [each for each in array("mg2hf.sh", jobs, ECHO, tmp_path, "--dtype", "bf16", **variables) if each]
    assert all(each.startswith("mg2hf --load-dir mg --save-dir hf --dtype bf16 --workers 2 ") for each in said)
    ranges = [tuple(map(int, each.split("file=")[1].split("-"))) for each in said]
    assert (ranges[0][0], ranges[-1][1]) == (1, files)
    assert all(first[1] + 1 == second[0] for first, second in pairwise(ranges))
