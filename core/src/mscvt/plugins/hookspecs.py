"""The hooks that a family's plugin implements: one for who it is, four for what differs.

Hooks are called only on the plugin that serves the model type, then on the core's defaults (`mscvt.plugins.defaults`);
the first answer that is not None holds. A hook may leave out arguments it does not use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pluggy

from mscvt.layout.rules import Rule
from mscvt.model.family import Hyperparameters, Layer, ModelType
from mscvt.parallel.topology import Topology
from mscvt.plugins.rule_blocks import RuleBlocks

hookspec = pluggy.HookspecMarker("mscvt")
hookimpl = pluggy.HookimplMarker("mscvt")

API_VERSION = 2
"""The version of these hooks. A plugin's module states the one it was made for as `MSCVT_API`."""


@hookspec
def mscvt_model_types() -> Sequence[ModelType]:  # type: ignore[empty-body]
    """Return the model types that this plugin serves.

    Called once, when plugins are loaded. None or an empty list is an error: the plugin would serve nothing.
    """


@hookspec(firstresult=True)
def mscvt_names(model_type: str, block: str, hyperparameters: Hyperparameters) -> Mapping[str, str] | None:
    """Name the Hugging Face tensor of each role in a block.

    Called with the blocks `model` (outside of the layers), `mtp` (what an MTP layer has besides its decoder layer),
    `mtp_repeats` (tensors of the model's ends that some checkpoints repeat in an MTP layer: they must be equal, are
    left out, and are not given back, as those of `mtp` are) and those of the kinds that `mscvt_layers` returns, such
    as `attention`, `mlp` and `moe`; the names of a layer's blocks are merged. None means what the model type's `names`
    say, and no such block where they don't have it.
    """


@hookspec(firstresult=True)
def mscvt_layers(model_type: str, hyperparameters: Hyperparameters) -> Sequence[Layer] | None:
    """Enumerate the layers of the model, decoder layers first, then MTP layers.

    Called with the model's full configuration (or with what a checkpoint recorded of it); reducing layers is the
    core's work. None means `attention` and `mlp` in a model without experts, and in one with experts where
    `first_k_dense_replace`, `moe_layer_freq`, `decoder_sparse_step` or `mlp_only_layers` say so; `attention` and `moe`
    in the other layers, then `mtp_num_layers` MTP layers, with experts where the model has any.
    """


@hookspec(firstresult=True)
def mscvt_split_rules(model_type: str, hyperparameters: Hyperparameters, blocks: RuleBlocks) -> Sequence[Rule] | None:
    """Return rules of the family's own: key, layout and cuts for roles that the dialect doesn't know.

    Called once a conversion. `blocks` makes the dialect's rules for a block under other keys and roles, for layers
    that have it more than once. The rules are tried before the dialect's, so one may also replace one of those. None
    means no rules.
    """


@hookspec(firstresult=True)
def mscvt_placement(
    model_type: str, topology: Topology, layers: Sequence[Layer]
) -> Sequence[tuple[int, str, int]] | None:
    """Place every layer, decoder and MTP: (stage, chunk, number inside the chunk), in the order of `layers`.

    Called once a conversion. None means the core's placement: decoder layers fill the slots that are not noop, MTP
    layers stand in the last chunk under their own number.
    """
