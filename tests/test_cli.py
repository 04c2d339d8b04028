"""The command line as a newcomer meets it: help, results, errors; what it converts is tested elsewhere."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from command_line import make_source, run_main
from golden_cases import CASES, build_source, huggingface_digests, load_case, megatron_digests
from mscvt import __version__
from mscvt.dialects.mindspeed.options import Options
from mscvt.model.options import rows

COMMANDS = ("hf2mg", "mg2hf", "convert", "verify", "plugins")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A Hugging Face and a Megatron checkpoint of the same model; don't write to them."""
    root = tmp_path_factory.mktemp("checkpoints")
    hf = make_source("qwen3", root / "hf")
    assert run_main("hf2mg", "--load-dir", hf, "--save-dir", root / "mg").code == 0
    return hf, root / "mg"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_fits_for_each_command(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = run_main(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    example = outcome.out.partition("Example:\n")[2]
    assert example.split()[:2] == ["mscvt", command]
    assert max(map(len, outcome.out.splitlines())) <= 80


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_help_writes_options_out_in_any_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    words = run_main("hf2mg", "--help").out.split()
    assert {row.flag for row in rows(Options).values()} <= set(words)
    assert words.count("[required]") == 2
    assert "<bool>" not in words


def test_help_puts_folders_first_and_running_last():
    text = run_main("convert", "--help").out
    titles = [line for line in text.splitlines() if re.fullmatch(r"[A-Z].*:", line)]
    assert titles == ["Checkpoints:", "Parallel layout:", "Tensors:", "Layers:", "Values:", "Running:"]
    flags = [line.split()[0] for line in text.splitlines() if line.startswith("  -")]
    assert flags[:5] == ["--load-dir", "--save-dir", "--load-model-type", "--save-model-type", "--model-type-hf"]
    assert flags[-3:] == ["--json", "--debug", "-h,"]


def test_help_of_the_program_lists_commands_and_examples(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = run_main("--help")
    listed = outcome.out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert tuple(line.split()[0] for line in listed.splitlines()) == COMMANDS
    assert "..." not in listed
    assert all(f"    mscvt {command} --" in outcome.out for command in ("hf2mg", "mg2hf", "verify"))
    assert run_main("-h").out == outcome.out


def test_no_arguments_show_the_help_and_are_wrong_usage():
    outcome = run_main()
    assert outcome.code == 2
    assert "Commands:" in outcome.out + outcome.err


def test_version_is_printed():
    assert run_main("--version").out == f"mscvt {__version__}\n"


def test_module_is_the_program():
    command = [sys.executable, "-m", "mscvt", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"mscvt {__version__}\n"


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


def test_results_are_on_stdout_when_all_is_well(checkpoints, tmp_path):
    hf, mg = checkpoints
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", "--target-tensor-parallel-size", 2)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("wrote 2 files, ")
    flags = outcome.out.partition("pass to the training script: ")[2].split()
    assert flags[:2] == ["--load", str(tmp_path / "mg")]
    assert flags[flags.index("--tensor-model-parallel-size") + 1] == "2"
    assert run_main("verify", "--hf", hf, "--mg", mg).out.startswith("equal; compared ")


def test_json_is_all_of_stdout_for_each_command(checkpoints, tmp_path):
    hf, mg = checkpoints
    runs = {
        "hf2mg": ["--load-dir", hf, "--save-dir", tmp_path / "mg", "--verify"],
        "mg2hf": ["--load-dir", mg, "--save-dir", tmp_path / "hf"],
        "convert": ["--load-dir", hf, "--save-dir", tmp_path / "other", "--dry-run"],
        "verify": ["--hf", hf, "--mg", mg],
        "plugins": [],
    }
    results = {}
    for command, arguments in runs.items():
        outcome = run_main(command, *arguments, "--json")
        assert (outcome.code, outcome.err) == (0, ""), command
        results[command] = json.loads(outcome.out)
    assert results["hf2mg"]["files"] == 1
    assert results["hf2mg"]["verified"] is True
    assert "--num-layers 8" in results["hf2mg"]["training_flags"]
    assert results["mg2hf"]["target"] == str(tmp_path / "hf")
    assert "training_flags" not in results["mg2hf"]
    assert [file["path"] for file in results["convert"]["files"]] == ["iter_0000001/mp_rank_00/model_optim_rng.pt"]
    assert results["verify"]["is_equal"] is True
    assert {"mscvt-llama", "mscvt-qwen3"} <= {plugin["distribution"] for plugin in results["plugins"]}


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
