"""Converted checkpoints load into the real megatron-core and compute what transformers computes.

Small random float32 models of transformers' own classes are converted with `mscvt hf2mg`; two
processes (`megatron_worker.py`) load the shards into megatron-core's GPTModel and run it. Nothing
here shares code with the converter, so a wrong idea about a layout can't be wrong in the same way
on both sides. Cases with a single rank run twice, as data parallel ranks of the same two processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from biased_plugin import installed
from megatron_cases import CASES, DISTRIBUTED, FAMILIES, OLDER, VOCABULARY, Case, Family
from mscvt.cli.app import app
from mscvt.testing import contents_in

pytestmark = pytest.mark.xdist_group("megatron-core")  # one process makes the models and shards for all of them

WORLD_SIZE = 2
TOKEN_IDS = [[(17 * (23 * row + column) + 5) % VOCABULARY for column in range(23)] for row in range(4)]
"""Every token once, so that every row of the embedding counts."""
ATOL = 5e-5
"""How far apart two logits may be; their standard deviation is 1, the largest is 4.

Measured: megatron-core and transformers differ by 4.6e-6 at the most, and transformers in float32
from itself in float64 by 5.0e-6, so that float32 rounding is all of it. Ten times that leaves room
for other CPUs. Swapping two neighbouring rows, columns or norm weights of a shard, at 2132 places
over all its tensors, moved a logit by 2.0e-3 at the least; for a choice of experts to change, a
router's logit would have to move by 5e-4.
"""


@dataclass(frozen=True, slots=True)
class Reference:
    """What transformers made of a family."""

    folder: Path
    logits: torch.Tensor
    """[batch, sequence, vocab]."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case."""

    conversion: Result
    checkpoint: Path
    ranks: list[dict[str, Any]]
    """By rank, what `megatron_worker.inspect_case` returned; empty if the conversion failed."""


def make_reference(family: Family, folder: Path) -> Reference:
    """Save a random model of the family and run it."""
    config = getattr(transformers, family.architecture + "Config")(
        **family.config, tie_word_embeddings=False, attn_implementation="eager"
    )
    model = getattr(transformers, family.architecture + "ForCausalLM")(config).float().eval()
    generator = torch.Generator().manual_seed(20)
    for parameter in model.parameters():
        # Norms start as ones and would hide a mix-up; the matrices' own spread of 0.02 would leave
        # attention flat and the experts nearly alike.
        mean, spread = (1.0, 0.3) if parameter.dim() == 1 else (0.0, parameter.shape[-1] ** -0.5)
        parameter.data.normal_(mean, spread, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("correction_bias"):
            buffer.normal_(0, 0.1, generator=generator)
    model.save_pretrained(folder)
    if family.mtp:
        add_mtp_layer(folder, generator)
    with torch.no_grad():
        return Reference(folder, model(torch.tensor(TOKEN_IDS)).logits)


def add_mtp_layer(folder: Path, generator: torch.Generator) -> None:
    """Give a checkpoint an MTP layer: like the last decoder layer, and what it has besides."""
    tensors = load_file(folder / "model.safetensors")
    last = max(int(name.split(".")[2]) for name in tensors if name.startswith("model.layers."))
    shapes = {name.split(".", 3)[3]: t.shape for name, t in tensors.items() if name.startswith(f"model.layers.{last}.")}
    hidden = tensors["model.norm.weight"].numel()
    shapes |= dict.fromkeys(("enorm.weight", "hnorm.weight", "shared_head.norm.weight"), (hidden,))
    shapes["eh_proj.weight"] = (hidden, 2 * hidden)
    more = {f"model.layers.{last + 1}.{name}": torch.randn(*s, generator=generator) for name, s in shapes.items()}
    for name, copy in (("embed_tokens", "model.embed_tokens"), ("shared_head.head", "lm_head")):
        more[f"model.layers.{last + 1}.{name}.weight"] = tensors[f"{copy}.weight"].clone()
    save_file(tensors | more, folder / "model.safetensors", metadata={"format": "pt"})


def run(command: str, **options: object) -> Result:
    """Run a command of mscvt in this process."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return CliRunner().invoke(app, [command, *words])


def convert(case: Case, source: Path, target: Path) -> Result:
    """Run `mscvt hf2mg` as a user would."""
    model_type = FAMILIES[case.family].model_type_hf
    words = ["--model-type-hf", model_type, "--load-dir", str(source), "--save-dir", str(target), *case.options]
    return CliRunner().invoke(app, ["hf2mg", *words])


def run_workers(job: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run the job on all ranks at once, under the megatron-core that it names.

    Returns:
        By rank, what was found: case name -> findings.
    """
    (folder / "job.json").write_text(json.dumps(job))
    # No compiler run for every function that megatron-core wants fused, no GPU, and the processes'
    # traffic on the loopback interface.
    environment = os.environ | {
        "TORCHDYNAMO_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if job["core"] == OLDER:
        older = Path(sys.prefix, "older-megatron")
        assert (older / "ready").exists(), f"no older megatron-core in {older}; make test puts it there"
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(older), os.environ.get("PYTHONPATH"))))
    script = Path(__file__).with_name("megatron_worker.py")
    command = [sys.executable, "-W", "ignore", script, folder / "job.json"]
    log = folder / "log"
    with log.open("wb") as stream:
        workers = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
    try:
        code = workers.wait(timeout=400)
    finally:
        with suppress(ProcessLookupError):  # with the processes that save for them
            os.killpg(workers.pid, signal.SIGKILL)
    assert code == 0, log.read_text()
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Serve the families with biases too, which no plugin here does."""
    with installed(tmp_path_factory.mktemp("plugin")):
        yield


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    """Make every family's model with transformers."""
    root = tmp_path_factory.mktemp("hf")
    return {name: make_reference(family, root / name) for name, family in FAMILIES.items()}


@pytest.fixture(scope="module")
def outcomes(
    plugin: None, references: dict[str, Reference], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """Convert all cases and inspect them in one launch for each megatron-core, which is slow to import."""
    root = tmp_path_factory.mktemp("mg")
    folders = {name: root / name for name in CASES}
    folders |= {name: root / f"{case.family}-distributed" for name, case in DISTRIBUTED.items()}
    every = CASES | DISTRIBUTED
    sources = {folder: name for name, folder in folders.items()}  # of those that share a folder one
    made = {folder: convert(every[n], references[every[n].family].folder, folder) for folder, n in sources.items()}
    jobs = {
        name: {
            "name": name,
            "checkpoint": str(folders[name] / case.iteration),
            "saved": str(root / f"{name}-saved" / "iter_0000007") if case.is_nvidias else None,
            "hf": FAMILIES[case.family].config | FAMILIES[case.family].megatron,
            "qk_layernorm": FAMILIES[case.family].qk_layernorm,
            "sizes": case.sizes,
            "grouped": case.grouped,
        }
        for name, case in every.items()
        if made[folders[name]].exit_code == 0
    }
    ranks: list[dict[str, Any]] = []
    for core in sorted({case.core for case in every.values()}):
        ours = {name: job for name, job in jobs.items() if every[name].core == core}
        job = {
            "core": core,
            "world_size": WORLD_SIZE,
            "token_ids": TOKEN_IDS,
            "cases": [ours[name] for name in CASES if name in ours],
            "distributed": [ours[name] for name in DISTRIBUTED if name in ours],
        }
        ranks += run_workers(job, tmp_path_factory.mktemp("job"))
    return {
        name: Outcome(made[folder], folder, [found[name] for found in ranks if name in found])
        for name, folder in folders.items()
    }


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    """Name each case in turn."""
    return request.param


@pytest.fixture
def outcome(name: str, outcomes: dict[str, Outcome]) -> Outcome:
    """Look up the case's outcome, which has one only if the conversion succeeded."""
    conversion = outcomes[name].conversion
    assert conversion.exit_code == 0, conversion.output
    return outcomes[name]


def test_shard_folders_equal_those_ranks_read_for_each_division(outcome: Outcome, name: str) -> None:
    case = CASES[name]
    shards = outcome.checkpoint.glob(f"{case.iteration}/*/model_optim_rng.pt")
    written = {path.parent.name for path in shards}
    read = {rank["folder"] for rank in outcome.ranks}
    if case.is_nvidias and case.expert_tensor == 1:  # every combination is there, of which two processes are some
        assert read < written
    else:
        assert read == written


def test_keys_and_shapes_equal_module_state_dict_for_each_division(outcome: Outcome) -> None:
    for rank in outcome.ranks:
        assert rank["module"] is not None, rank["error"]
        assert rank["shard"] == rank["module"]


def test_shard_loads_strictly_for_each_division(outcome: Outcome) -> None:
    assert [rank["error"] for rank in outcome.ranks] == [None] * WORLD_SIZE


def test_logits_equal_transformers_for_each_division(
    outcome: Outcome, name: str, references: dict[str, Reference]
) -> None:
    expected = references[CASES[name].family].logits
    computed = [rank["logits"] for rank in outcome.ranks if rank["logits"] is not None]
    assert len(computed) == WORLD_SIZE // CASES[name].pipeline
    for logits in computed:
        torch.testing.assert_close(logits, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("saved", [name for name, case in CASES.items() if case.is_nvidias])
def test_what_megatron_saves_becomes_the_original(
    saved: str, outcomes: dict[str, Outcome], references: dict[str, Reference], tmp_path: Path
) -> None:
    original, folder = references[CASES[saved].family].folder, outcomes[saved].checkpoint
    trained = folder.with_name(f"{saved}-saved")
    result = run("mg2hf", load_dir=trained, save_dir=tmp_path / "back", hf_cfg_dir=original)
    assert result.exit_code == 0, result.output
    assert "recognised as megatron" in result.output
    assert contents_in(tmp_path / "back") == contents_in(original)


@pytest.fixture(params=DISTRIBUTED)
def distributed(request: pytest.FixtureRequest, outcomes: dict[str, Outcome]) -> tuple[str, Outcome]:
    """Name each division that a distributed checkpoint is loaded into."""
    outcome = outcomes[request.param]
    assert outcome.conversion.exit_code == 0, outcome.conversion.output
    assert [rank["error"] for rank in outcome.ranks] == [None] * WORLD_SIZE, outcome.ranks[0]["error"]
    return request.param, outcome


def test_distributed_checkpoint_gives_transformers_logits_for_each_division(
    distributed: tuple[str, Outcome], references: dict[str, Reference]
) -> None:
    name, outcome = distributed
    computed = [rank["logits"] for rank in outcome.ranks if rank["logits"] is not None]
    assert len(computed) == WORLD_SIZE // DISTRIBUTED[name].pipeline
    for logits in computed:
        torch.testing.assert_close(logits, references[DISTRIBUTED[name].family].logits, rtol=0, atol=ATOL)


def test_distributed_checkpoint_that_megatron_saves_becomes_the_original(
    distributed: tuple[str, Outcome], references: dict[str, Reference], tmp_path: Path
) -> None:
    name, outcome = distributed
    original, trained = references[DISTRIBUTED[name].family].folder, outcome.checkpoint.with_name(f"{name}-saved")
    result = run("mg2hf", load_dir=trained, save_dir=tmp_path / "back", hf_cfg_dir=original)
    assert result.exit_code == 0, result.output
    assert "recognised as megatron in the format torch_dist" in result.output
    assert contents_in(tmp_path / "back") == contents_in(original)
