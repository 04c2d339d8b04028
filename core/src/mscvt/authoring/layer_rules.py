"""Which layers are dense: the usual ways in which configurations say it, and which of them holds for a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from mscvt.model.fields import Field, count, counts
from mscvt.records import dataclass


@dataclass(frozen=True, slots=True)
class LayerRule:
    """One way to say which layers are dense."""

    fields: Mapping[str, Field]
    needs: str
    """The field that `config.json` must have for it."""
    is_dense: Callable[[Mapping[str, Any], int], Any]
    """Whether a layer is dense, by `config.json` and its number: what the core makes of these fields."""


def _leading(name: str) -> LayerRule:
    return LayerRule(
        {"first_k_dense_replace": count(name, least=0)},
        name,
        lambda config, i: i < config[name],
    )


_RULES = (
    *map(_leading, ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")),
    LayerRule(
        {
            "decoder_sparse_step": count("decoder_sparse_step", default=1),
            "mlp_only_layers": counts("mlp_only_layers", default=()),
        },
        "mlp_only_layers",
        lambda config, i: i in config["mlp_only_layers"] or (i + 1) % config.get("decoder_sparse_step", 1),
    ),
)


def layer_rule(config: Mapping[str, Any], layers: int, dense: Collection[int]) -> LayerRule | None:
    """The way that agrees with a checkpoint, or None where none does.

    Args:
        config: The parsed `config.json`.
        layers: How many decoder layers there are.
        dense: Those that are dense.
    """
    for rule in _RULES:
        if config.get(rule.needs) is None:
            continue
        try:
            if all(bool(rule.is_dense(config, i)) == (i in dense) for i in range(layers)):
                return rule
        except (TypeError, ZeroDivisionError):  # the field holds something else than the rule thinks
            continue
    return None
