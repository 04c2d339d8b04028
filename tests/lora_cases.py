"""The cases of LoRA: a small model, its factors, commands, and the exact result of each."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from golden_cases import load_case
from mscvt.testing import content, digest, save_huggingface

CASES = Path(__file__).parent / "golden" / "lora"
_DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32, "u8": torch.uint8}
_CONTENTS = {"bf16": "BF16", "f32": "F32"}

Case = dict[str, Any]


def tensor_of(name: str, spec: list[Any]) -> torch.Tensor:
    """A tensor by its name and `[shape, dtype]`, or `[shape, dtype, rule]`."""
    shape, dtype, *rules = spec
    if not rules and dtype in _CONTENTS:
        return content(name, shape, _CONTENTS[dtype])
    rule = rules[0] if rules else {"int": [0, 255]}
    if "utf8" in rule:
        return torch.tensor(list(rule["utf8"].encode()), dtype=torch.uint8)
    if "values" in rule:
        return torch.tensor(rule["values"], dtype=_DTYPES[dtype]).reshape(shape)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    draw = np.random.Generator(np.random.PCG64(seed)).integers
    numbers = draw(*rule["int"], size=int(np.prod(shape)), dtype=np.int64, endpoint=True) * rule.get("times", 1.0)
    return torch.from_numpy(numbers).to(_DTYPES[dtype]).reshape(shape)


def whole_tensors(case: Case) -> dict[str, torch.Tensor]:
    """Every weight of the model and every factor, uncut."""
    specs = {**case["hf"]["tensors"], **case.get("factors", {})}
    return {name: tensor_of(name, spec) for name, spec in specs.items()}


def build(case: Case, name: str, folder: Path) -> Path:
    """Write one of a case's inputs."""
    whole = whole_tensors(case)
    if name == "hf":
        return save_huggingface(folder, case["hf"]["config"], {n: whole[n] for n in case["hf"]["tensors"]})
    if name == "peft":
        factors = {name: whole[of] for name, of in case["peft"]["tensors"].items()}
        return save_adapter(folder, case["peft"]["config"], factors)
    made = case["mg"][name]
    args = Namespace(**case["args"], **made["args"])
    for rank, chunks in made["shards"].items():
        state: dict[str, Any] = {"args": args, "checkpoint_version": 3.0, "iteration": made["iteration"]}
        state |= {chunk: {key: _shard(spec, whole) for key, spec in keys.items()} for chunk, keys in chunks.items()}
        file = folder / f"iter_{made['iteration']:07d}" / rank / "model_optim_rng.pt"
        file.parent.mkdir(parents=True)
        torch.save(state, file)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(made["iteration"]))
    return folder


def save_adapter(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """Write an adapter of PEFT; returns its folder."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


def _shard(spec: list[Any] | None, whole: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """A shard's tensor: chunks one after the other in memory, each of blocks of rows that are stacked."""
    if spec is None:
        return None
    shape, _, expected, recipe = spec
    chunks = []
    for is_transposed, *blocks in recipe:
        parts = []
        for name, *box in blocks:
            rows, columns = (slice(*box[at : at + 2]) if len(box) > at else slice(None) for at in (0, 2))
            parts.append(whole[name][rows] if whole[name].ndim == 1 else whole[name][rows, columns])
        stacked = torch.cat(parts)
        chunks.append((stacked.t() if is_transposed else stacked).reshape(-1))
    shard = torch.cat(chunks).reshape(shape)
    assert digest(shard) == expected
    return shard


def all_runs() -> list[tuple[str, int]]:
    """Each case's name, and the number of each of its runs."""
    return [
        (path.stem, number) for path in sorted(CASES.glob("*.json")) for number in range(len(load_case(path)["runs"]))
    ]


def merged(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """A merge, written out: in f32 rank by rank, rounded once."""
    total = torch.zeros(weight.shape)
    for rank in range(len(a)):
        total = total + b[:, rank, None].float() * a[None, rank].float()
    return (weight.float() + total * scale).to(weight.dtype)
