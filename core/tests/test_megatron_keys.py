"""The NVIDIA dialect names what models of real megatron-core have, version by version.

`data/megatron_keys.json` is what `state_dict` and `sharded_state_dict` of `GPTModel` gave in megatron-core 0.10 to
0.19, for the local spec and for Transformer Engine's: key -> shape, null for a state that holds no weight. A group of
versions with the same tensors is one entry; parts of models that a version can't build are missing.
"""

import json
from pathlib import Path

import pytest
from small_models import NAMES, family
from walks import targets

from mscvt.description.description import describe
from mscvt.dialects import megatron
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.model.family import DENSE, MOE, Layer
from mscvt.model.layers import select_layers
from mscvt.model.options import with_defaults
from mscvt.plan.by_shard import ByShard
from mscvt.plugins.blocks import FULL_QUERY, LATENT_ATTENTION, NORMS, QK_NORM, QKV_BIAS, SHARED_EXPERTS

ENTRIES = json.loads(Path(__file__).with_name("data").joinpath("megatron_keys.json").read_text(encoding="utf-8"))
H = {
    "num_layers": 2,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 8,
    "vocab_size": 64,
    "padded_vocab_size": 64,
}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 16}
LATENT = {
    "num_query_groups": 4,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
MTP_ENDS = {role: name for role, name in NAMES["mtp"].items() if role.startswith("mtp.")}
SPECS = {"local": "local", "te": "transformer_engine"}


def model(parts):
    """Sizes, names and layers of a model with these parts, and the options that they are."""
    h, names, options = dict(H), {**NAMES, "mtp": MTP_ENDS}, {}
    kinds = [DENSE, DENSE]
    if "moe" in parts:
        h |= EXPERTS
        kinds = [DENSE if "freq" in parts else MOE, MOE]
        names["moe"] = {role: name for role, name in NAMES["moe"].items() if role != "moe.router_bias"}
    if "grouped" in parts or "legacygrouped" in parts:
        options["moe_grouped_gemm"] = True
        options["moe_use_legacy_grouped_gemm"] = "legacygrouped" in parts or None
    if "shared" in parts:
        h["moe_shared_expert_intermediate_size"] = 24
        names["moe"] |= {**SHARED_EXPERTS, "moe.shared_gate": "shared_gate.{layer}"}
        names["moe"]["moe.router_bias"] = "router_bias.{layer}"
    if "mla" in parts:
        h |= LATENT if "noqlora" in parts else {**LATENT, "q_lora_rank": 16}
        del h["kv_channels"]
        names["attention"] = NORMS | (FULL_QUERY if "noqlora" in parts else LATENT_ATTENTION)
    if "qknorm" in parts:
        names["attention"] = {**names["attention"], **QK_NORM, **QKV_BIAS}
    layers = [Layer(i, kind) for i, kind in enumerate(kinds)]
    if "mtp" in parts:
        options["mtp_num_layers"] = 1
        layers.append(Layer(2, kinds[-1], mtp=0))
    return h | {"tie_word_embeddings": "tied" in parts}, family(layers, names=names), options


def described(parts, spec, version, ckpt_format="torch"):
    h, made, options = model(parts)
    filled = with_defaults(
        Options(
            dialect="megatron",
            transformer_impl=SPECS[spec],
            megatron_core_version=version,
            ckpt_format=ckpt_format,
            non_homogeneous_layers=(ckpt_format == "torch_dist" and "freq" in parts) or None,
            **options,
        )
    )
    layers = made.layers(h)
    megatron.check(filled, h, made.parts(layers, h))
    selection = select_layers(layers, filled)
    topology = megatron.topology(filled, selection.decoder_count)
    return describe(made, h, filled, topology, selection, megatron), filled


LEGACY = [
    (entry, version)
    for entry in ENTRIES
    if entry["format"] == "legacy" and "gate" not in entry["parts"].split("+")
    for version in entry["versions"]
]


@pytest.mark.parametrize(
    ("entry", "version"), LEGACY, ids=[f"{entry['spec']}-{entry['parts']}-{version}" for entry, version in LEGACY]
)
def test_legacy_keys_and_shapes_are_those_of_the_version(entry, version):
    parts, spec = entry["parts"].split("+"), entry["spec"]
    if spec == "te" and "noqlora" in parts and version == "0.19":
        with pytest.raises(MscvtError, match="normalises a query that is not compressed once more"):
            described(parts, spec, version)
        return
    made, options = described(parts, spec, version)
    found = {key: list(target.shape) for target in targets(ByShard(made)) for _, _, key in target.names}
    states = megatron.empty_states(options, list(found))
    has_states = {key for key, shape in entry["tensors"].items() if shape is None}
    assert found == {key: shape for key, shape in entry["tensors"].items() if shape is not None}
    assert set(states) == (has_states if spec == "te" else set())


DISTRIBUTED = [
    (entry, version)
    for entry in ENTRIES
    if entry["format"] == "dist" and "gate" not in entry["parts"].split("+")
    for version in entry["versions"]
]


@pytest.mark.parametrize(
    ("entry", "version"),
    DISTRIBUTED,
    ids=[f"{entry['spec']}-{entry['parts']}-{version}" for entry, version in DISTRIBUTED],
)
def test_one_distributed_checkpoint_has_what_every_spec_and_version_asks_for(entry, version):
    parts = entry["parts"].split("+")
    if "noqlora" in parts and version == "0.19":
        with pytest.raises(MscvtError, match="normalises a query that is not compressed once more"):
            described(parts, "te", version, "torch_dist")
        return
    made, options = described(parts, "te", version if "mtp" not in parts else "0.19", "torch_dist")
    shapes = {key: target.shape for target in targets(ByShard(made)) for _, _, key in target.names}
    slots = megatron.DISTRIBUTED.slots(options, shapes)
    written = {name: [*slot.counts, *shapes[key]] for key, slot in slots.items() for name in (slot.name, *slot.others)}
    objects = set(megatron.DISTRIBUTED.objects(slots, megatron.empty_states(options, list(shapes))))
    assert all(len(places) == len(set(places)) for places in _places(slots).values())
    for key, wanted in entry["tensors"].items():
        if isinstance(wanted, str):
            assert {f"{key}/shard_{index}_{wanted}" for index in _indices(wanted)} <= objects
        else:
            assert written[key] == wanted


def _indices(counts):
    if not counts.count("."):
        return [str(index) for index in range(int(counts))]
    first, second = map(int, counts.split("."))
    return [f"{i}.{j}" for i in range(first) for j in range(second)]


def _places(slots):
    places = {}
    for slot in slots.values():
        places.setdefault(slot.name, []).append(slot.indices)
    return places


def test_every_version_that_can_be_asked_for_was_looked_at():
    looked_at = {version for entry in ENTRIES for version in entry["versions"]}
    for spec in SPECS:
        asked = {version for entry, version in LEGACY if entry["spec"] == spec}
        assert asked == looked_at
