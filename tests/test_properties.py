"""Any allowed combination of model and options converts exactly, both ways; any other is refused.

The examples of a test run are the same every time. For a longer search with other examples:
`MSCVT_EXAMPLES=5000 pytest tests/test_properties.py`.
"""

import tempfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_reshard, prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.jobs.verify import verify_checkpoints
from mscvt.plugins.registry import load_registry
from mscvt.testing import save_huggingface
from random_models import MODEL_TYPES, WITH_EXPERTS, WITH_LATENT_ATTENTION, Case, cases, examples, is_dense
from random_targets import layouts
from random_weights import weights
from reference_converter import expected_args, expected_return, expected_shards
from reference_placement import kept_layers
from small_configurations import DEEPSEEK, MIXTURE

REGISTRY = load_registry()
WORKERS = Settings(workers=1)


def hf2mg(case, hf, mg):
    request = Request(hf, Options(**case.options), model_type=case.model_type, dtype=case.dtype)
    run_conversion(prepare_to_megatron(request, REGISTRY), mg, WORKERS)


def mg2hf(case, mg, back):
    run_conversion(prepare_to_huggingface(Request(mg, Options(), dtype=case.back_dtype), REGISTRY), back, WORKERS)


def read_megatron(folder):
    """Path -> part -> key -> tensor, and the args of every file."""
    found, args = {}, []
    with torch.serialization.safe_globals([Namespace]):
        for path in sorted(folder.rglob("*.pt")):
            state = torch.load(path, weights_only=True, mmap=True)
            assert state.keys() >= {"args", "checkpoint_version", "iteration"}
            assert (state["checkpoint_version"], state["iteration"]) == (3.0, 1)
            args.append(vars(state["args"]))
            found[str(path.relative_to(folder))] = {
                part: model for part, model in state.items() if part.startswith("model")
            }
    return found, args


def read_huggingface(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def assert_same(found, expected):
    """Names, shapes, dtypes and every byte."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype), name
        ours, theirs = (t.contiguous().view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(ours, theirs), name


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_layout(case, folder, target, asked, removed):
    """Another layout of what was converted is what the original gives under its options, and goes back as exactly."""
    there, expected = folder / "there", folder / "expected"
    request = Request(folder / "mg", asked, removed=removed)
    run_conversion(prepare_reshard(request, REGISTRY), there, WORKERS)
    request = Request(folder / "hf", target, model_type=case.model_type, dtype=case.dtype)
    run_conversion(prepare_to_megatron(request, REGISTRY), expected, WORKERS)
    assert files_in(there) == files_in(expected)
    mg2hf(case, there, folder / "again")
    assert_same(read_huggingface(folder / "again"), read_huggingface(folder / "back"))


def check(case: Case, folder: Path, *, verified: bool) -> None:
    source = weights(case)
    hf = save_huggingface(folder / "hf", case.config, source, shards=case.shards, ending=case.ending)
    mg, back = folder / "mg", folder / "back"
    hf2mg(case, hf, mg)
    shards, all_args = read_megatron(mg)
    expected = expected_shards(case, source)
    assert shards.keys() == expected.keys()
    for path, parts in expected.items():
        assert shards[path].keys() == parts.keys()
        for part, model in parts.items():
            assert type(shards[path][part]) is dict
            assert_same(shards[path][part], model)
    wanted = expected_args(case)
    for args in all_args:
        assert {name: args.get(name, "absent") for name in wanted} == wanted
    assert sorted(path.name for path in mg.iterdir()) == ["iter_0000001", "latest_checkpointed_iteration.txt"]
    assert (mg / "latest_checkpointed_iteration.txt").read_text() == "1"
    if verified:
        report = verify_checkpoints(hf=hf, mg=mg, registry=REGISTRY, dtype=case.dtype, workers=1)
        assert report.is_equal
        assert report.tensors == sum(len(model) for parts in expected.values() for model in parts.values())
    mg2hf(case, mg, back)
    assert_same(read_huggingface(back), expected_return(case, source))
    assert sorted(path.name for path in folder.iterdir()) == ["back", "hf", "mg"]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_conversion_equals_reference_both_ways_for_any_allowed_options(model_type):
    @examples(14)
    @given(case=cases((model_type,)), verified=st.sampled_from([True, False, False]), data=st.data())
    def convert(case, verified, data):
        with tempfile.TemporaryDirectory() as folder:
            check(case, Path(folder), verified=verified)
            if data.draw(st.sampled_from([True, False, False])):
                check_layout(case, Path(folder), *data.draw(layouts(case)))

    convert()


def _without(options, *names):
    return {name: value for name, value in options.items() if name not in names}


STAGES = ("num_layer_list", "num_layers_per_virtual_pipeline_stage", "schedules_method", "noop_layers")


def faults(case):
    """Every way to ask for what this case can't have: what is wrong -> the options."""
    o, c = case.options, case.config
    slots = len(kept_layers(case)) + len(o.get("noop_layers", ()))
    plain = _without(o, *STAGES)
    found = {
        "tensor parallel": o | {"target_tensor_parallel_size": 97},
        "pipeline parallel": o | {"target_pipeline_parallel_size": slots + 13},
        "zero": o | {"target_tensor_parallel_size": 0},
        "negative": o | {"target_pipeline_parallel_size": -case.pp},
        "virtual beyond": plain | {"num_layers_per_virtual_pipeline_stage": slots + 1},
        "virtual zero": plain | {"num_layers_per_virtual_pipeline_stage": 0},
        "virtual and list": plain | {"num_layers_per_virtual_pipeline_stage": 1, "num_layer_list": (slots,)},
        "virtual and dualpipev": plain | {"num_layers_per_virtual_pipeline_stage": 1, "schedules_method": "dualpipev"},
        "list sum": plain | {"num_layer_list": (slots + 1,) + (1,) * (case.pp - 1)},
        "list length": plain | {"num_layer_list": (slots,) + (0,) * case.pp},
        "list negative": plain | {"target_pipeline_parallel_size": 2, "num_layer_list": (slots + 50, -50)},
        "list and noop": plain | {"num_layer_list": (slots,) + (0,) * (case.pp - 1), "noop_layers": (0,)},
        "noop repeated": _without(o, "num_layer_list") | {"noop_layers": (0,) * (2 * case.pp)},
        "noop beyond": _without(o, "num_layer_list") | {"noop_layers": (10**6, *range(2 * case.pp - 1))},
        "noop negative": _without(o, "num_layer_list") | {"noop_layers": (-1, *range(2 * case.pp - 1))},
        "schedule": o | {"schedules_method": "1f1b"},
        "implementation": o | {"transformer_impl": "inference_optimized"},
        "layers beyond": o | {"num_layers": c["num_hidden_layers"] + 1},
        "no layers": o | {"num_layers": 0},
        "dense beyond": o | {"num_layers": 1, "first_k_dense_replace": c["num_hidden_layers"] + 1},
        "mtp beyond": o | {"mtp_num_layers": c.get("num_nextn_predict_layers", 0) + 1},
        "mtp negative": o | {"mtp_num_layers": -1},
        "vocabulary": o | {"make_vocab_size_divisible_by": 0},
        "odd for dualpipev": plain
        | {"schedules_method": "dualpipev", "num_layers": 1, "target_pipeline_parallel_size": 1},
        "expert tensor parallel": o | {"expert_tensor_parallel_size": case.tp + 1},
    }
    if case.model_type in WITH_EXPERTS:
        experts = c.get("n_routed_experts") or c["num_experts"]
        if case.mtp or not all(is_dense(case, layer) for layer in kept_layers(case)):
            found["expert parallel"] = o | {"target_expert_parallel_size": experts + 1}
        if case.tp > 1:
            whole = {"expert_tensor_parallel_size": 1}
            found["whole and extended"] = o | whole | {"moe_tp_extend_ep": True}
            prime = {"target_expert_parallel_size": 5, "moe_tp_extend_ep": False}
            found["whole on unequal ranks"] = o | whole | prime
    else:
        found |= {
            name: o | {name: value}
            for name, value in (
                ("target_expert_parallel_size", 2),
                ("moe_grouped_gemm", True),
                ("moe_tp_extend_ep", True),
                ("first_k_dense_replace", 0),
            )
        }
    if case.model_type not in WITH_LATENT_ATTENTION:
        found["latent attention"] = o | {"mla_mm_split": True}
    if case.mtp:
        found["fused with mtp"] = o | {"transformer_impl": "transformer_engine"}
    return found


def broken_sources(case, source):
    """What is wrong -> tensors that are not this model's."""
    attention = f"model.layers.{kept_layers(case)[0]}.self_attn."
    out = attention + "o_proj.weight"
    latent = case.model_type in WITH_LATENT_ATTENTION
    fused = attention + ("kv_a_proj_with_mqa.weight" if latent else "k_proj.weight")
    return {
        "missing": _without(source, out),
        "left over": source | {out.replace("weight", "bias"): torch.zeros(3)},
        "shape": source | {out: torch.cat([source[out], source[out]])},
        "rank": source | {out: source[out].reshape(-1)},
        "dtype": source | {fused: torch.ones(source[fused].shape, dtype=torch.int32)},
    }


@examples(60)
@given(case=cases())
def test_conversion_is_refused_and_leaves_nothing_for_options_outside_of_the_model(case):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hf = save_huggingface(folder / "hf", case.config, weights(case))
        for what, options in faults(case).items():
            try:
                hf2mg(replace(case, options=options), hf, folder / "mg")
            except MscvtError:
                pass
            else:
                pytest.fail(f"{what} was not refused: {options}")
            assert [path.name for path in folder.iterdir()] == ["hf"], what
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (what, source) in enumerate(broken_sources(case, weights(case)).items()):
            hf = save_huggingface(folder / f"hf{number}", case.config, source)
            with pytest.raises(MscvtError):
                hf2mg(case, hf, folder / "mg")
            assert all(path.name.startswith("hf") for path in folder.iterdir()), what


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("qwen3-moe", {"mlp_only_layers": [0, 1]}),  # dense, moe, moe: mlp_only_layers would still name layer 1
        ("deepseek2", {"first_k_dense_replace": 3, "moe_layer_freq": 2}),  # kinds go by numbers, which change
    ],
)
def test_reduced_layers_that_no_configuration_describes_are_refused(model_type, sizes, tmp_path):
    config = MIXTURE if model_type == "qwen3-moe" else {**DEEPSEEK, "model_type": "deepseek_v2"}
    config = {**config, "num_nextn_predict_layers": 0, "num_hidden_layers": 8, **sizes}
    case = Case(model_type, config, {"num_layers": 4, "first_k_dense_replace": 1})
    hf = save_huggingface(tmp_path / "hf", config, weights(case))
    with pytest.raises(MscvtError, match=f"no configuration of {model_type} describes"):
        hf2mg(case, hf, tmp_path / "mg")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
