"""A small Qwen3-MoE of transformers' own making goes to Megatron and back, and nothing of it is lost.

Run it with `make demo`; `--keep DIR` keeps the files. Exits with 1 where anything is not equal.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from transformers import AutoModelForCausalLM, Qwen3MoeConfig
from transformers.utils import logging

TENSOR, PIPELINE, EXPERT, VIRTUAL = 2, 2, 2, 2
"""Ranks of each kind, and the layers of a virtual stage."""
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 24,
    "intermediate_size": 160,
    "moe_intermediate_size": 40,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "mlp_only_layers": [0],
    "vocab_size": 512,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
ENDS = {"embedding": "embedding", "final_layernorm": "norm", "output_layer": "head"}
TOKENS = [[3, 141, 59, 26, 5, 358, 97, 9], [27, 182, 81, 82, 84, 59, 45, 2]]
TO_MEGATRON = rf"""mscvt hf2mg --load-dir hf --save-dir mg --moe-grouped-gemm \
    --target-tensor-parallel-size {TENSOR} --target-pipeline-parallel-size {PIPELINE} \
    --target-expert-parallel-size {EXPERT} --num-layers-per-virtual-pipeline-stage {VIRTUAL}"""
BACK = "mscvt mg2hf --load-dir mg --save-dir back --hf-cfg-dir hf"
VERIFY = "mscvt verify --hf hf --mg mg"

console = Console(highlight=False, soft_wrap=True)


def make_model(folder: Path) -> torch.Tensor:
    """Save a random model in several files; returns its logits, [batch, sequence, vocab]."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(Qwen3MoeConfig(**SIZES), dtype=torch.bfloat16).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms begin as ones and would all look the same
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, max_shard_size="600KB")
    return compute_logits(model)


def compute_logits(model: torch.nn.Module) -> torch.Tensor:
    """What the model makes of some tokens."""
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits


def run(command: str, folder: Path) -> None:
    """Run a command of mscvt as a user would, in a folder."""
    program, *arguments = shlex.split(command.replace("\\\n", ""))
    subprocess.run([sys.executable, "-m", program, *arguments], cwd=folder, check=True)


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a Hugging Face checkpoint."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def load_shards(folder: Path) -> Iterator[tuple[str, str, Mapping[str, torch.Tensor]]]:
    """Rank, chunk and tensors, of every chunk of every file of a Megatron checkpoint."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        for path in sorted(folder.glob("iter_*/*/model_optim_rng.pt")):
            state = torch.load(path, weights_only=True, mmap=True)
            for chunk in sorted(key for key in state if key.startswith("model")):
                yield path.parent.name, chunk, state[chunk]


def find_layers(tensors: Mapping[str, torch.Tensor], chunk: Mapping[str, torch.Tensor]) -> list[int]:
    """The model's layers in a chunk, recognised by the bytes of their first norm."""
    names = [f"model.layers.{i}.input_layernorm.weight" for i in range(SIZES["num_hidden_layers"])]
    norms = [norm for key, norm in sorted(chunk.items()) if key.endswith("input_layernorm.weight")]
    return [i for norm in norms for i, name in enumerate(names) if torch.equal(tensors[name], norm)]


def find_experts(
    tensors: Mapping[str, torch.Tensor], chunk: Mapping[str, torch.Tensor], layers: list[int], rank: int
) -> list[int]:
    """The experts in a chunk, recognised by their gate; memory order is (expert, hidden, gate | up, ffn / TP)."""
    ffn = SIZES["moe_intermediate_size"] // TENSOR
    grouped = [weight for key, weight in sorted(chunk.items()) if key.endswith("experts.weight1")]
    found = set()
    for weight in grouped:
        for gate in weight.view(-1, SIZES["hidden_size"], 2, ffn)[:, :, 0].transpose(1, 2):
            for layer in layers:
                for expert in range(SIZES["num_experts"]):
                    whole = tensors.get(f"model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight")
                    if whole is not None and torch.equal(whole[rank * ffn : (rank + 1) * ffn], gate):
                        found.add(expert)
    return sorted(found)


def show_shards(hf: Path, mg: Path) -> Table:
    """What lies where, read from the files."""
    tensors = load_tensors(hf)
    table = Table("rank", "chunk", "layers", "experts", "ends", "tensors", title="what lies where")
    last = ""
    for rank, part, chunk in load_shards(mg):
        layers = find_layers(tensors, chunk)
        experts = find_experts(tensors, chunk, layers, int(rank.split("_")[2]))
        ends = [name for word, name in ENDS.items() if any(word in key for key in chunk)]
        shown = (" ".join(map(str, numbers)) for numbers in (layers, experts))
        table.add_row("" if rank == last else rank, part, *shown, ", ".join(ends), str(len(chunk)))
        last = rank
    return table


def find_differences(hf: Path, back: Path) -> list[str]:
    """The tensors of two Hugging Face checkpoints that are not the same, bit for bit."""
    ours, theirs = load_tensors(hf), load_tensors(back)
    return [
        name
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours
        or name not in theirs
        or (ours[name].dtype, ours[name].shape) != (theirs[name].dtype, theirs[name].shape)
        or not torch.equal(ours[name].view(torch.uint8), theirs[name].view(torch.uint8))
    ]


def demonstrate(folder: Path) -> bool:
    """Go there and back in a folder; returns whether everything was equal."""

    def step(text: str, command: str = "") -> None:
        console.print(f"\n[bold]{text}[/bold]")
        if command:
            console.print(f"[green]$ {command}[/green]", markup=True)
            run(command, folder)

    step(f"1. A Qwen3-MoE made by transformers: {SIZES['num_hidden_layers']} layers, {SIZES['num_experts']} experts")
    logits = make_model(folder / "hf")
    console.print("hf: " + " ".join(sorted(path.name for path in (folder / "hf").iterdir())))
    step("2. To Megatron: TP 2, PP 2, EP 2, virtual stages of 2 layers, grouped experts", TO_MEGATRON)
    console.print(show_shards(folder / "hf", folder / "mg"))
    step("3. And back", BACK)
    step("4. Is it the same?", VERIFY)
    differences = find_differences(folder / "hf", folder / "back")
    model = AutoModelForCausalLM.from_pretrained(folder / "back")
    same = torch.equal(logits, compute_logits(model.eval()))
    count = len(load_tensors(folder / "hf"))
    console.print(f"hf and back: {count - len(differences)} of {count} tensors equal, byte for byte")
    console.print(f"{type(model).__name__} opened from back: logits {'exactly equal' if same else 'NOT EQUAL'}")
    for name in differences:
        console.print(f"differs: {name}")
    return same and not differences


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder and keep it")
    keep = parser.parse_args(arguments).keep
    logging.disable_progress_bar()
    try:
        if keep is not None:
            keep.mkdir(parents=True)
            good = demonstrate(keep)
        else:
            with tempfile.TemporaryDirectory(prefix="mscvt-demo-") as folder:
                good = demonstrate(Path(folder))
    except FileExistsError:
        console.print(f"{keep} is there already; --keep makes a new folder")
        return 1
    except subprocess.CalledProcessError as error:
        console.print(f"the command failed with exit code {error.returncode}")
        return 1
    console.print("\n[bold]everything is equal[/bold]" if good else "\n[bold red]NOT everything is equal[/bold red]")
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
