"""What Megatron-LM's `megatron/training/arguments.py` (core_v0.16.1) makes of a command line, as far as a model goes.

Its parser is built from the fields of megatron-core's own configuration; `OWN` are the options that it adds by hand.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import Any, get_args

import torch
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig

OWN = {
    **dict.fromkeys(("--seq-length", "--max-position-embeddings", "--rotary-base", "--num-experts"), int),
    **dict.fromkeys(("--make-vocab-size-divisible-by", "--mtp-num-layers", "--kv-lora-rank", "--q-lora-rank"), int),
    **dict.fromkeys(("--qk-head-dim", "--qk-pos-emb-head-dim", "--v-head-dim"), int),
    **dict.fromkeys(("--rotary-percent", "--rope-scaling-factor", "--rotary-scaling-factor"), float),
    **dict.fromkeys(("--mscale", "--mscale-all-dim"), float),
    **dict.fromkeys(("--group-query-attention", "--swiglu", "--squared-relu", "--quick-geglu"), bool),
    **dict.fromkeys(("--use-rope-scaling", "--untie-embeddings-and-output-weights"), bool),
    **dict.fromkeys(
        ("--position-embedding-type", "--rope-type", "--transformer-impl", "--hybrid-override-pattern"), str
    ),
    "--spec": "words",
    **dict.fromkeys(("--moe-layer-freq", "--no-rope-freq"), "pattern"),
}
"""Option -> what its value is."""
_NAMED = {
    "--norm-epsilon": "layernorm_epsilon",
    "--apply-layernorm-1p": "layernorm_zero_centered_gamma",
    "--disable-bias-linear": "add_bias_linear",
    "--num-experts": "num_moe_experts",
}
"""Option -> the field of another name that it sets."""


def parsed(command: str) -> dict[str, Any]:
    """Option -> value, each of the type that the parser gives it; an option that it has not is an error."""
    fields = {field.name: field for field in dataclasses.fields(TransformerConfig)}
    runs: list[list[str]] = []
    for word in shlex.split(command):
        if word.startswith("--"):
            runs.append([word])
        else:
            runs[-1].append(word)
    found = {}
    for option, *words in runs:
        assert option not in found, f"{option} is told twice"
        field = fields.get(_NAMED.get(option, option[2:].replace("-", "_")))
        kind = OWN.get(option) or (_kind(field.type) if field is not None else None)
        assert kind is not None, f"Megatron-LM has no {option}"
        found[option] = _value(option, kind, words)
    return found


def _kind(annotation: Any) -> Any:
    if isinstance(annotation, type):
        return annotation
    inner = [kind for kind in get_args(annotation) if kind is not type(None)]
    return inner[0] if inner and isinstance(inner[0], type) else str


def _value(option: str, kind: Any, words: list[str]) -> Any:
    if kind == "words":
        return words
    if kind is bool:
        assert not words, f"{option} takes nothing, not {words}"
        return True
    assert len(words) == 1, f"{option} takes one value, not {words}"
    if kind == "pattern" and "[" in words[0]:
        assert re.fullmatch(r"[,\d\[\]()+*]+", words[0]), f"{option} can't be {words[0]!r}"
        return eval(words[0])  # as the parser does
    return int(words[0]) if kind == "pattern" else kind(words[0])


def config_of(command: str) -> TransformerConfig:
    """The configuration that a training script which is told this builds, on one rank."""
    told = parsed(command)
    kind = MLATransformerConfig if "--multi-latent-attention" in told else TransformerConfig
    names = {field.name for field in dataclasses.fields(kind)}
    said = {_NAMED.get(option, option[2:].replace("-", "_")): value for option, value in told.items()}
    values = {name: value for name, value in said.items() if name in names}
    values["add_bias_linear"] = "--disable-bias-linear" not in told
    if "--swiglu" in told:
        values |= {"activation_func": torch.nn.functional.silu, "gated_linear_unit": True}
    elif "--squared-relu" in told:
        values["activation_func"] = lambda x: torch.nn.functional.relu(x).square()
    if "--group-query-attention" not in told:
        values.pop("num_query_groups", None)
    if kind is MLATransformerConfig:
        values.setdefault("rotary_scaling_factor", 1.0)  # the parser's own default, which is not the configuration's
    return kind(**values)
