"""Every golden case, both ways, through the command line's own entry."""

import pytest
from typer.testing import CliRunner

from golden_cases import CASES, build_source, huggingface_digests, load_case, megatron_digests
from mscvt.cli.app import app

FILES = sorted(CASES.glob("*.json"))


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_conversion_gives_exact_tensors_both_ways(path, tmp_path):
    case = load_case(path)
    hf, mg, back = build_source(case, tmp_path / "hf"), tmp_path / "mg", tmp_path / "back"
    family = ["--model-type-hf", case["model_type_hf"]]
    run("hf2mg", *family, "--load-dir", hf, "--save-dir", mg, *case["hf2mg"])
    assert megatron_digests(mg) == case["mg"]
    assert (mg / "latest_checkpointed_iteration.txt").read_text() == "1"
    run("mg2hf", *family, "--load-dir", mg, "--save-dir", back, *case["mg2hf"])
    assert huggingface_digests(back) == case["hf_back"]


def test_way_back_needs_no_options_that_args_record(tmp_path):
    case = load_case(CASES / "deepseek3_tp2_pp2_vpp2_noop_mtp1_tp_extend_ep.json")
    hf, mg, back = build_source(case, tmp_path / "hf"), tmp_path / "mg", tmp_path / "back"
    run("hf2mg", "--load-dir", hf, "--save-dir", mg, *case["hf2mg"])
    run("mg2hf", "--load-dir", mg, "--save-dir", back)
    assert huggingface_digests(back) == case["hf_back"]
