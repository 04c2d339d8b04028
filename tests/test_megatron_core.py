"""Converted checkpoints load into the real megatron-core and compute what transformers computes.

Small random float32 models of transformers' own classes are converted with `mscvt hf2mg`; two
processes (`megatron_worker.py`) load the shards into megatron-core's GPTModel and run it. Nothing
here shares code with the converter, so a wrong idea about a layout can't be wrong in the same way
on both sides. Cases with a single rank run twice, as data parallel ranks of the same two processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

pytestmark = pytest.mark.xdist_group("megatron-core")  # one process makes the models and shards for all of them

WORLD_SIZE = 2
VOCABULARY = 92
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
class Family:
    """A model type and a tiny model of it."""

    model_type_hf: str
    architecture: str
    """Prefix of the transformers classes, as in `LlamaConfig` and `LlamaForCausalLM`."""
    qk_layernorm: bool
    config: dict[str, Any]
    """What transformers and megatron-core are told, under the names of config.json."""


# Sizes differ from each other, so that a transposed or mixed-up tensor doesn't fit; 12 heads in 4
# groups leave each of two tensor parallel ranks two groups, so that their order can be wrong.
SHARED = {
    "vocab_size": VOCABULARY,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "intermediate_size": 100,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
}
QWEN3 = {**SHARED, "hidden_size": 56, "head_dim": 10}
MOE = {
    "moe_intermediate_size": 20,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
FAMILIES = {
    "llama": Family("llama2", "Llama", False, {**SHARED, "hidden_size": 72, "num_hidden_layers": 2}),
    "qwen3": Family("qwen3", "Qwen3", True, {**QWEN3, "num_hidden_layers": 4}),
    "qwen3-moe": Family("qwen3-moe", "Qwen3Moe", True, {**QWEN3, **MOE, "num_hidden_layers": 2}),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One conversion."""

    family: str
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    expert_tensor: int | None = None
    """None: not on the command line, and the tensor parallel size for megatron-core."""
    grouped: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """Give the sizes the names of `megatron_reference.ParallelSizes`."""
        return {
            "tensor": self.tensor,
            "pipeline": self.pipeline,
            "expert": self.expert,
            "expert_tensor": self.expert_tensor or self.tensor,
        }

    @property
    def options(self) -> list[str]:
        """List the options of `mscvt hf2mg` that make this division."""
        options = [
            f"--target-tensor-parallel-size={self.tensor}",
            f"--target-pipeline-parallel-size={self.pipeline}",
        ]
        if self.expert > 1:
            options.append(f"--target-expert-parallel-size={self.expert}")
        if self.expert_tensor is not None:
            options.append(f"--expert-tensor-parallel-size={self.expert_tensor}")
        if self.grouped:
            options.append("--moe-grouped-gemm")
        return options


CASES = {
    "llama-tp1": Case("llama"),
    "llama-tp2": Case("llama", tensor=2),
    "qwen3-tp1": Case("qwen3"),
    "qwen3-tp2": Case("qwen3", tensor=2),
    "qwen3-pp2": Case("qwen3", pipeline=2),
    "moe-tp1": Case("qwen3-moe"),
    "moe-tp2": Case("qwen3-moe", tensor=2),
    "moe-ep2": Case("qwen3-moe", expert=2),
    "moe-grouped-tp1": Case("qwen3-moe", grouped=True),
    "moe-grouped-tp2": Case("qwen3-moe", tensor=2, grouped=True),
    "moe-grouped-tp2-ep2-etp1": Case("qwen3-moe", tensor=2, expert=2, expert_tensor=1, grouped=True),
}
"""What two processes can hold."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What transformers made of a family."""

    folder: Path
    logits: torch.Tensor
    """[batch, sequence, vocab]."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case."""

    conversion: subprocess.CompletedProcess[str]
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
    model.save_pretrained(folder)
    with torch.no_grad():
        return Reference(folder, model(torch.tensor(TOKEN_IDS)).logits)


def convert(case: Case, source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Run `mscvt hf2mg` as a user would."""
    model_type = FAMILIES[case.family].model_type_hf
    command = [sys.executable, "-m", "mscvt", "hf2mg", "--model-type-hf", model_type]
    command += ["--load-dir", str(source), "--save-dir", str(target), *case.options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def run_workers(job: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run the job on all ranks at once.

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
    script = Path(__file__).with_name("megatron_worker.py")
    logs = [folder / f"rank_{rank}.log" for rank in range(WORLD_SIZE)]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for rank, log in enumerate(logs):
            command = [sys.executable, "-W", "ignore", script, folder / "job.json", str(rank)]
            with log.open("wb") as stream:
                workers.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream))
        codes = [worker.wait(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert not any(codes), "\n".join(log.read_text() for log in logs)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    """Make every family's model with transformers."""
    root = tmp_path_factory.mktemp("hf")
    return {name: make_reference(family, root / name) for name, family in FAMILIES.items()}


@pytest.fixture(scope="session")
def outcomes(references: dict[str, Reference], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Convert all cases and inspect them in one launch, as megatron-core is slow to import."""
    root = tmp_path_factory.mktemp("mg")
    with ThreadPoolExecutor(WORLD_SIZE) as pool:
        futures = {
            name: pool.submit(convert, case, references[case.family].folder, root / name)
            for name, case in CASES.items()
        }
    conversions = {name: future.result() for name, future in futures.items()}
    jobs = [
        {
            "name": name,
            "checkpoint": str(root / name),
            "hf": FAMILIES[case.family].config,
            "qk_layernorm": FAMILIES[case.family].qk_layernorm,
            "sizes": case.sizes,
            "grouped": case.grouped,
        }
        for name, case in CASES.items()
        if conversions[name].returncode == 0
    ]
    job = {"world_size": WORLD_SIZE, "token_ids": TOKEN_IDS, "cases": jobs}
    ranks = run_workers(job, tmp_path_factory.mktemp("job"))
    return {
        name: Outcome(conversion, root / name, [found[name] for found in ranks if name in found])
        for name, conversion in conversions.items()
    }


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    """Name each case in turn."""
    return request.param


@pytest.fixture
def outcome(name: str, outcomes: dict[str, Outcome]) -> Outcome:
    """Look up the case's outcome, which has one only if the conversion succeeded."""
    conversion = outcomes[name].conversion
    assert conversion.returncode == 0, conversion.stderr
    return outcomes[name]


def test_shard_folders_equal_those_ranks_read_for_each_division(outcome: Outcome) -> None:
    shards = outcome.checkpoint.glob("iter_0000001/*/model_optim_rng.pt")
    written = {path.parent.name for path in shards}
    assert written == {rank["folder"] for rank in outcome.ranks}


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
