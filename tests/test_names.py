"""`mscvt names`: a checkpoint's tensors as a folded table, with and without a model type."""

import json
import subprocess
import sys

import pytest
import torch

from command_line import run_main
from json_keys import check_object
from mscvt.errors.folding import fold_counted
from mscvt.jobs.names import look_at_names
from mscvt.plugins.registry import Registry, load_registry
from mscvt.testing import save_huggingface, source_tensors
from small_configurations import MIXTURE

PROGRAM = """
import sys
from mscvt.cli.app import app
try:
    app()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""
CONFIG = {**MIXTURE, "mlp_only_layers": [1]}


@pytest.fixture
def folder(tmp_path):
    tensors = source_tensors(load_registry().family("qwen3-moe"), CONFIG)
    return save_huggingface(tmp_path / "hf", CONFIG, tensors)


def lines_with(text, words):
    return [" ".join(line.split()) for line in text.splitlines() if words in line]


def test_tensors_that_differ_in_numbers_are_one_line_with_role_key_and_cut(folder):
    outcome = run_main("names", folder)
    assert outcome.code == 0, outcome.err
    assert lines_with(outcome.out, "self_attn.q_proj") == [
        "model.layers.{0-3}.self_attn.q_proj.weight [24, 20] BF16 x4 attention.q self_attention.linear_qkv.weight "
        "tp: group"
    ]
    assert lines_with(outcome.out, "experts.{0-3}.down_proj") == [
        "model.layers.{0,2-3}.mlp.experts.{0-3}.down_proj.weight [20, 6] BF16 x12 moe.expert.down "
        "mlp.experts.local_experts.{expert}.linear_fc2.weight ep: expert, etp: moe_ffn"
    ]
    (dense,) = lines_with(outcome.out, "mlp.gate_proj")
    assert dense.startswith("model.layers.1.mlp.gate_proj.weight [14, 20] BF16 x1 mlp.gate ")
    assert "left over" not in outcome.out
    assert "missing" not in outcome.out


def test_left_over_missing_and_other_shapes_are_said_under_a_model_type(folder):
    tensors = source_tensors(load_registry().family("qwen3-moe"), CONFIG)
    del tensors["model.layers.2.self_attn.q_norm.weight"], tensors["model.layers.3.self_attn.q_norm.weight"]
    tensors["model.layers.0.self_attn.k_norm.weight"] = torch.zeros(7, dtype=torch.bfloat16)
    tensors |= {f"model.vision.{i}.weight": torch.zeros(2, 3) for i in (0, 1, 2, 5)}
    save_huggingface(folder, CONFIG, tensors)
    placed, _, rest = run_main("names", folder).out.partition("\nleft over:\n")
    left_over, _, missing = rest.partition("\nmissing:\n")
    assert " ".join(left_over.split()) == "model.vision.{0-2,5}.weight [2, 3] F32 x4"
    assert lines_with(missing, "")[-1].startswith("model.layers.{2-3}.self_attn.q_norm.weight [6] x2 attention.q_norm ")
    assert lines_with(placed, "layers.0.self_attn.k_norm")[0].endswith(" expected [6]")
    assert len(lines_with(placed, "self_attn.k_norm")) == 2


def test_names_are_shown_without_any_plugin_and_without_config(folder):
    (folder / "config.json").unlink()
    names = look_at_names(folder, Registry((), {}, {}))
    assert names.model_type is None
    assert [row.part for row in names.table.rows] == [None] * len(names.table.rows)
    assert sum(row.count for row in names.table.rows) == len(
        source_tensors(load_registry().family("qwen3-moe"), CONFIG)
    )
    assert "no roles are shown" in names.notes[-1]


def test_model_type_that_was_asked_for_and_does_not_exist_is_an_error(folder):
    outcome = run_main("names", folder, "--model-type-hf", "abacus")
    assert outcome.code == 1
    assert "unknown model type 'abacus'" in outcome.err


def test_names_as_json_have_a_row_for_each_line(folder):
    shown = json.loads(run_main("names", "--json", folder).out)
    check_object("names", shown)
    assert shown["model_type"] == "qwen3-moe"
    row = next(row for row in shown["rows"] if row["names"] == "model.layers.{0-3}.self_attn.q_norm.weight")
    assert row == {
        "names": "model.layers.{0-3}.self_attn.q_norm.weight",
        "count": 4,
        "shape": [6],
        "dtype": "BF16",
        "part": {
            "role": "attention.q_norm",
            "key": "self_attention.q_layernorm.weight",
            "cut": "",
            "shape": [6],
        },
    }


def test_torch_is_not_imported_for_safetensors(folder):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "names", str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == ["False"]
    assert "attention.q_norm" in done.stdout


def test_two_names_fold_and_a_single_one_stays():
    names = ["a.0.w", "a.1.w", "b.7.w"]
    assert fold_counted(names, 2) == [("a.{0-1}.w", 2), ("b.7.w", 1)]
    assert fold_counted(names, 3) == [("a.0.w", 1), ("a.1.w", 1), ("b.7.w", 1)]
