"""How rotary embeddings are scaled, as far as Megatron-LM's training script can be told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from mscvt.records import dataclass

_TYPE = "rope_scaling_type"


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of scaling, its numbers named as `mscvt.dialects.settings` does."""

    switches: tuple[str, ...]
    """Options that turn it on."""
    options: Mapping[str, str]
    """Option -> the number that it takes."""
    fixed: Mapping[str, float]
    """Number without an option -> what it always is."""


_BY_BANDS = _Kind(
    ("use_rope_scaling",),
    {"rope_scaling_factor": "rope_scaling_factor"},
    {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192},
)
_YARN = _Kind(
    (),
    {
        "rotary_scaling_factor": "rope_scaling_factor",
        "mscale": "rope_scaling_mscale",
        "mscale_all_dim": "rope_scaling_mscale_all_dim",
    },
    {"beta_fast": 32, "beta_slow": 1, "rope_scaling_original_max_position_embeddings": 4096},
)
_OF: Mapping[bool, Mapping[str, _Kind]] = MappingProxyType({False: {"llama3": _BY_BANDS}, True: {"yarn": _YARN}})
"""Whether attention is latent -> the kinds that there are: those of megatron-core's `RotaryEmbedding`, and of its
`MLATransformerConfig`, which scales by YaRN always, by a factor of 1 where the script is told none."""


def _kind(settings: Mapping[str, Any], roles: Collection[str]) -> _Kind | None:
    return _OF["mla.kv_down" in roles].get(str(settings.get(_TYPE)))


def scaling(settings: Mapping[str, Any], roles: Collection[str]) -> dict[str, Any]:
    """Argument -> value.

    Args:
        settings: What a configuration says, as `mscvt.dialects.settings` gives it.
        roles: The roles of the model's tensors.
    """
    if (kind := _kind(settings, roles)) is None:
        return {}
    found = {option: settings[name] for option, name in kind.options.items() if name in settings}
    return dict.fromkeys(kind.switches, True) | found


def unsaid(settings: Mapping[str, Any], roles: Collection[str]) -> tuple[str, ...]:
    """What the training script has no option for, one line each; the arguments are those of `scaling`."""
    name = settings.get(_TYPE)
    if name is None:
        return ()
    said = f"config.json scales rotary embeddings ({name})"
    if (kind := _kind(settings, roles)) is None:
        return (f"{said}, for which Megatron-LM has no option with this attention",)
    return tuple(
        f"{said} with {number} {settings[number]}, and Megatron-LM has {value} and no option for it"
        for number, value in kind.fixed.items()
        if settings.get(number, value) != value
    )
