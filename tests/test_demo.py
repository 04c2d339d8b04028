"""The demonstration, in this process: what it shows, and that it notices when something is lost."""

import importlib.util
import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mscvt.cli.app import app

SCRIPT = Path(__file__).parents[1] / "examples" / "demo.py"


@pytest.fixture
def demo(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("demo_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.console = Console(file=io.StringIO(), width=120, highlight=False, soft_wrap=True)
    module.real_run = module.run
    module.run = lambda command, folder: run_here(command, folder, monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return module


def run_here(command, folder, monkeypatch):
    """Run a command of mscvt in this process, which is quicker."""
    monkeypatch.chdir(folder)
    words = shlex.split(command.replace("\\\n", ""))
    assert words[0] == "mscvt"
    result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def shown(demo):
    return demo.console.file.getvalue()


def test_demo_shows_every_step_and_leaves_nothing_when_all_is_equal(demo, tmp_path):
    assert demo.main([]) == 0
    text = shown(demo)
    assert [line for line in text.splitlines() if line.startswith("$ ")] == [
        "$ mscvt hf2mg --load-dir hf --save-dir mg --moe-grouped-gemm \\",
        "$ mscvt mg2hf --load-dir mg --save-dir back --hf-cfg-dir hf",
        "$ mscvt verify --hf hf --mg mg",
    ]
    rows = [tuple(cell.strip() for cell in line.split("│")[1:-1]) for line in text.splitlines() if "│" in line]
    assert len(rows) == 8 * 2
    assert rows[0] == ("mp_rank_00_000_000", "model0", "0 1", "0 1 2", "embedding", "18")
    assert rows[-1] == ("", "model1", "6 7", "3 4 5", "norm, head", "20")
    assert [row[2] for row in rows[:8]] == ["0 1", "4 5"] * 2 + ["2 3", "6 7"] * 2
    assert "203 of 203 tensors equal" in text
    assert "logits exactly equal" in text
    assert text.endswith("everything is equal\n")
    assert list(tmp_path.glob("mscvt-demo-*")) == []


def test_demo_fails_when_a_bit_of_the_result_is_wrong(demo, tmp_path):
    convert = demo.run

    def spoil(command, folder):
        convert(command, folder)
        if command == demo.BACK:
            (path,) = (folder / "back").glob("*.safetensors")
            raw = bytearray(path.read_bytes())
            raw[-1] ^= 0x40
            path.write_bytes(raw)

    demo.run = spoil
    assert demo.main(["--keep", str(tmp_path / "kept")]) == 1
    assert "202 of 203 tensors equal" in shown(demo)
    assert "differs: lm_head.weight" in shown(demo)
    assert "NOT everything is equal" in shown(demo)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["back", "hf", "mg"]


def test_demo_fails_when_a_command_fails(demo, tmp_path):
    demo.run = demo.real_run
    demo.TO_MEGATRON = "mscvt hf2mg --load-dir hf"
    assert demo.main([]) == 1
    assert "exit code 2" in shown(demo)
    assert list(tmp_path.glob("mscvt-demo-*")) == []


def test_demo_refuses_to_keep_files_in_a_folder_that_exists(demo, tmp_path):
    (tmp_path / "kept").mkdir()
    assert demo.main(["--keep", str(tmp_path / "kept")]) == 1
    assert "is there already" in shown(demo)
    assert list((tmp_path / "kept").iterdir()) == []


def test_run_starts_the_real_command_when_it_goes_over_two_lines(demo, tmp_path, capfd):
    demo.real_run("mscvt \\\n    --version", tmp_path)
    assert capfd.readouterr().out.startswith("mscvt ")
