"""LoRA of every family: an adapter becomes factors, and these are merged as if it had been."""

import pytest
import torch

import support_table
from lora_cases import merged, save_adapter
from mscvt.dialects import mindspeed
from mscvt.formats.peft.names import factor_names
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.model.lora import Lora
from mscvt.plan.by_huggingface import uses_by_name
from mscvt.plugins.registry import load_registry
from mscvt.testing import Options, save_huggingface, source_tensors
from mscvt.testing.conversions import content_of, contents_in
from mscvt.testing.sources import describe_whole, without_mtp

RANK, ALPHA = 2, 6
SUITES = {s.model_type: s for s in sorted(support_table.suites(), key=lambda suite: len(suite.variants()))}
FAMILIES = load_registry().families
BY_PLUGIN = {FAMILIES[model_type].plugin.distribution: model_type for model_type in sorted(SUITES, reverse=True)}
LAYOUTS = ("tp2_pp2_ep2_grouped", "pp2_virtual_stages_ep4", "tp2_pp2_padded_vocabulary", "pp4")
"""The standard cases of the contract, the first of which that a family has is taken."""
CONFIG = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "init_lora_weights": True, "bias": "none"}


def factors_of(description, random):
    """Factors of everything that training can adapt; tensors of a fused weight have one A."""
    found = {}
    for name, uses in uses_by_name(description).items():
        use = uses[0]
        if mindspeed.lora.can_be_trained(use.parameter.key) and name.endswith(".weight") and len(use.side.shape) == 2:
            rows, columns = use.side.shape
            a, b = factor_names(name)
            found[b] = torch.randn(rows, RANK, generator=random).bfloat16()
            same = (use.parameter.key, use.parameter.stage, columns, use.held if use.side.held else ())
            found[a] = found.setdefault(same, torch.randn(RANK, columns, generator=random).bfloat16())
    return {name: tensor for name, tensor in found.items() if isinstance(name, str)}


@pytest.mark.parametrize("model_type", sorted({*BY_PLUGIN.values(), "phi3.5"}))
def test_adapter_becomes_factors_that_are_merged_for_every_family(model_type, tmp_path):
    registry, variants = load_registry(), SUITES[model_type].variants()
    family = registry.family(model_type)
    config = without_mtp(family, SUITES[model_type].config)
    description = describe_whole(family, config)
    tensors = source_tensors(family, config)
    factors = factors_of(description, torch.Generator().manual_seed(5))
    hf = save_huggingface(tmp_path / "hf", config, tensors)
    adapter = save_adapter(tmp_path / "adapter", CONFIG, factors)
    options = next(variants[name] for name in LAYOUTS if name in variants)

    def run(prepare, source, target, lora, options=None):
        request = Request(source, options or Options(), model_type=model_type, lora=Lora(**lora))
        run_conversion(prepare(request, registry), tmp_path / target, Settings(workers=1))
        return tmp_path / target

    base = run(prepare_to_megatron, hf, "mg", {}, options)
    trained = run(prepare_to_megatron, hf, "factors", {"lora_load": adapter, "save_lora_to_mg": True}, options)
    back = run(prepare_to_huggingface, base, "back", {"lora_load": trained})
    expected = {}
    for name, tensor in tensors.items():
        a, b = factor_names(name)
        expected[name] = content_of(merged(tensor, factors[a], factors[b], ALPHA / RANK) if a in factors else tensor)
    found = contents_in(back)
    assert found == {name: expected[name] for name in found}
    assert {name for name in expected if factor_names(name)[0] in factors} <= found.keys()
