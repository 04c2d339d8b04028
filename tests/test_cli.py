"""The command line as a newcomer meets it: help, results, errors; what it converts is tested elsewhere."""

import json
import shlex

import pytest

from command_line import make_source, run_main
from golden_cases import CASES, build_source, huggingface_digests, load_case, megatron_digests
from json_keys import check_object

COMMANDS = ("hf2mg", "mg2hf", "convert", "verify", "plugins")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A Hugging Face and a Megatron checkpoint of the same model; don't write to them."""
    root = tmp_path_factory.mktemp("checkpoints")
    hf = make_source("qwen3", root / "hf")
    assert run_main("hf2mg", "--load-dir", hf, "--save-dir", root / "mg").code == 0
    return hf, root / "mg"


TO_MEGATRON = r"""
python convert_ckpt_v2.py \
    --load-model-type hf \
    --save-model-type mg \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 4 \
    --target-expert-parallel-size 2 \
    --num-layers-per-virtual-pipeline-stage 1 \
    --noop-layers 6,7 \
    --load-dir ./model_from_hf/qwen3_moe_hf/ \
    --save-dir ./model_weights/qwen3_moe_mcore/ \
    --moe-grouped-gemm \
    --model-type-hf qwen3-moe
"""
"""MindSpeed-LLM's documented command line for Qwen3-235B, for a smaller model: its sizes were 1, 4, 32, 8 and 94,95."""
TO_HUGGING_FACE = r"""
python convert_ckpt_v2.py \
    --load-model-type mg \
    --save-model-type hf \
    --noop-layers 6,7 \
    --load-dir ./model_weights/qwen3_moe_mcore/ \
    --save-dir ./model_from_hf/qwen3_moe_back/ \
    --moe-grouped-gemm \
    --model-type-hf qwen3-moe
"""


def words_of(script):
    words = shlex.split(script.replace("\\\n", " "))
    assert words[:2] == ["python", "convert_ckpt_v2.py"]
    return words[2:]


def test_convert_takes_the_original_command_lines_unchanged_both_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = load_case(CASES / "qwen3_moe_pp4_ep2_vpp1_noop_gemm.json")
    build_source(case, tmp_path / "model_from_hf" / "qwen3_moe_hf")
    assert run_main("convert", *words_of(TO_MEGATRON)).code == 0
    assert megatron_digests(tmp_path / "model_weights" / "qwen3_moe_mcore") == case["mg"]
    assert run_main("convert", *words_of(TO_HUGGING_FACE)).code == 0
    assert huggingface_digests(tmp_path / "model_from_hf" / "qwen3_moe_back") == case["hf_back"]


def test_convert_goes_to_megatron_by_default(checkpoints, tmp_path):
    hf, mg = checkpoints
    assert run_main("convert", "--load-dir", hf, "--save-dir", tmp_path / "mg").code == 0
    assert megatron_digests(tmp_path / "mg") == megatron_digests(mg)


def handed_over(outcome):
    """The words that are printed to be pasted into a training script, each option on a line of its own."""
    text = outcome.out.partition("pass to the training script")[2].partition("\n")[2].partition("to compare")[0]
    assert all(line.startswith("    --") for line in text.splitlines())
    return shlex.split(text)


def test_results_are_on_stdout_when_all_is_well(checkpoints, tmp_path):
    hf, mg = checkpoints
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", "--target-tensor-parallel-size", 2)
    assert outcome.code == 0
    phases = [line.split(maxsplit=1)[1] for line in outcome.err.splitlines()]
    assert [phase.split(",")[0] for phase in phases] == ["allocating", "converting"]
    assert outcome.out.startswith("wrote 2 files, ")
    flags = handed_over(outcome)
    assert flags[:2] == ["--load", str(tmp_path / "mg")]
    assert flags[flags.index("--tensor-model-parallel-size") + 1] == "2"
    assert run_main("verify", "--hf", hf, "--mg", mg).out.startswith("equal; compared ")


def test_json_is_all_of_stdout_for_each_command(checkpoints, tmp_path):
    hf, mg = checkpoints
    runs = {
        "hf2mg": ["--load-dir", hf, "--save-dir", tmp_path / "mg", "--verify"],
        "mg2hf": ["--load-dir", mg, "--save-dir", tmp_path / "hf"],
        "mg2mg": ["--load-dir", mg, "--save-dir", tmp_path / "tp2", "--tp", "2"],
        "convert": ["--load-dir", hf, "--save-dir", tmp_path / "other", "--dry-run"],
        "verify": ["--hf", hf, "--mg", mg],
        "plugins": [],
    }
    results = {}
    for command, arguments in runs.items():
        outcome = run_main(command, *arguments, "--json")
        assert (outcome.code, outcome.err) == (0, ""), command
        results[command] = json.loads(outcome.out)
        assert results[command]["command"] == command
    kinds = {
        "hf2mg": "result",
        "mg2hf": "result",
        "mg2mg": "result",
        "convert": "plan",
        "verify": "verify",
        "plugins": "plugins",
    }
    for command, kind in kinds.items():
        check_object(kind, results[command])
    assert results["hf2mg"]["verified"] is True
    assert results["hf2mg"]["training_flags"][:4] == ["--load", str(tmp_path / "mg"), "--num-layers", "8"]
    assert results["mg2hf"]["target"] == str(tmp_path / "hf")
    assert results["mg2hf"]["training_flags"] == []
    assert results["convert"]["is_dry_run"] is True
    assert [file["path"] for file in results["convert"]["files"]] == ["iter_0000001/mp_rank_00/model_optim_rng.pt"]
    assert results["convert"]["files"] == results["hf2mg"]["files"]
    assert results["verify"]["is_equal"] is True
    assert results["verify"]["bytes"] == results["hf2mg"]["bytes"]
    assert {"mscvt-llama", "mscvt-qwen3"} <= {plugin["distribution"] for plugin in results["plugins"]["plugins"]}


def test_what_is_printed_to_be_pasted_is_quoted(checkpoints, tmp_path):
    target = tmp_path / "with blanks" / "and 'quotes'"
    outcome = run_main("hf2mg", "--load-dir", checkpoints[0], "--save-dir", target)
    assert shlex.split(outcome.out.partition(" to ")[2].splitlines()[0]) == [str(target)]
    assert handed_over(outcome)[:2] == ["--load", str(target)]


def test_end_says_how_to_prove_the_result_unless_it_was_verified(checkpoints, tmp_path):
    hf, _ = checkpoints
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", "--dtype", "fp16")
    proof = shlex.split(outcome.out.splitlines()[-1].partition("to compare every byte: mscvt ")[2])
    assert proof == ["verify", "--hf", str(hf), "--mg", str(tmp_path / "mg"), "--dtype", "fp16"]
    assert run_main(*proof).out.startswith("equal; ")
    back = ["mg2hf", "--load-dir", tmp_path / "mg", "--hf-cfg-dir", hf]
    outcome = run_main(*back, "--save-dir", tmp_path / "hf")
    assert f"mscvt verify --hf {tmp_path / 'hf'} --mg {tmp_path / 'mg'}" in outcome.out
    assert "memory at most" in outcome.out
    assert "mscvt verify" not in run_main(*back, "--save-dir", tmp_path / "other", "--verify").out


def test_zero_that_was_asked_for_is_handed_over(tmp_path):
    hf = make_source("deepseek3", tmp_path / "hf")
    options = ["--num-layers", 4, "--first-k-dense-replace", 0, "--dry-run"]
    flags = handed_over(run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", *options))
    assert flags[flags.index("--first-k-dense-replace") + 1] == "0"
    assert flags[flags.index("--num-experts") + 1] == "8"
    assert {"--multi-latent-attention", "--moe-router-topk", "--qk-layernorm"} <= set(flags)


def test_quiet_shows_no_progress(checkpoints, tmp_path):
    hf, mg = checkpoints
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert run_main("verify", "--hf", hf, "--mg", mg, "--quiet").err == ""


@pytest.mark.parametrize(
    ("written", "model_type"), [("qwen3", "qwen3"), ("QWEN3", "qwen3"), ("llama", "llama2"), ("qwen3_moe", "qwen3-moe")]
)
def test_model_type_is_taken_as_config_json_spells_it(written, model_type, tmp_path):
    hf = make_source(model_type, tmp_path / "hf")
    options = ["--save-dir", tmp_path / "mg", "--dry-run", "--model-type-hf", written]
    assert run_main("hf2mg", "--load-dir", hf, *options).code == 0


def test_options_are_taken_under_their_other_names(checkpoints, tmp_path):
    plans = [
        run_main("hf2mg", "--load-dir", checkpoints[0], "--save-dir", tmp_path / "mg", "--dry-run", *options).out
        for options in (
            ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "4"],
            ["--tp", "2", "--pp=4"],
            ["--tensor-model-parallel-size=2", "--pipeline-model-parallel-size", "4"],
        )
    ]
    assert "mp_rank_{00-01}_003" in plans[0]
    assert plans == plans[:1] * 3


@pytest.mark.parametrize("command", ["hf2mg", "mg2hf"])
def test_dry_run_lists_the_files_and_writes_nothing(command, checkpoints, tmp_path):
    source = checkpoints[0] if command == "hf2mg" else checkpoints[1]
    outcome = run_main(command, "--load-dir", source, "--save-dir", tmp_path / "made", "--dry-run")
    assert outcome.code == 0
    assert ("model_optim_rng.pt" if command == "hf2mg" else "model.safetensors") in outcome.out
    assert "would write 1 file, " in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_lists_only_the_part_that_is_asked_for(checkpoints, tmp_path):
    options = ["--target-pipeline-parallel-size", 4, "--dry-run", "--only", "pp=1-2"]
    outcome = run_main("hf2mg", "--load-dir", checkpoints[0], "--save-dir", tmp_path / "mg", *options)
    ranks = [line.split("/")[1] for line in outcome.out.splitlines() if line.startswith("iter_")]
    assert ranks == ["mp_rank_00_001", "mp_rank_00_002"]
    assert "would write 2 files, " in outcome.out


def test_plugins_lists_distributions_and_the_error_of_a_broken_one(tmp_path, monkeypatch):
    folder = tmp_path / "mscvt_broken-4.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mscvt-broken\nVersion: 4.5\n")
    (folder / "entry_points.txt").write_text("[mscvt]\nbroken = mscvt_broken\n")
    (tmp_path / "mscvt_broken.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = run_main("plugins")
    lines = outcome.out.splitlines()
    assert (outcome.code, outcome.err) == (0, "")
    at = lines.index("mscvt-broken 4.5: broken = mscvt_broken")
    assert "ModuleNotFoundError: No module named 'not_installed_here'" in lines[at + 1]
    served = [line for line in lines if line.startswith("mscvt-deepseek ")]
    assert [line.split(": ")[1] for line in served] == ["deepseek2, deepseek2-lite, deepseek3, deepseek32"]
