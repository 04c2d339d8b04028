"""On the way back: tensors that repeat others must hold the same bytes, and nothing that is read is replaced."""

import pytest
from typer.testing import CliRunner

from golden_cases import CASES, build_source, load_case
from mscvt.cli.app import app
from mscvt.errors import MscvtError
from mscvt.formats.megatron_torch.reader import MegatronSource
from mscvt.parallel.grid import Rank


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def change(folder, rank, key):
    """Flip one bit of a tensor in a shard."""
    source = MegatronSource(folder)
    source.open_ranks([Rank(t, p, e) for t in range(2) for p in range(2) for e in rank[1]], 2, rank[2])
    name = next(name for name in source.tensors if name[0] == rank[0] and name[2] == key)
    info = source.tensors[name]
    with source.files[info.file].open("r+b") as file:
        file.seek(info.offset + 7)
        byte = file.read(1)[0]
        file.seek(info.offset + 7)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize(
    ("case", "rank", "key"),
    [
        ("qwen3_tp2_pp2_tied", (Rank(1, 1, 0), range(1), 1), "output_layer.weight"),
        ("deepseek3_tp2_pp2_ep2_mtp1_gemm", (Rank(1, 1, 0), range(2), 2), "embedding.word_embeddings.weight"),
    ],
)
def test_copy_that_differs_from_what_it_repeats_is_refused_by_name(case, rank, key, tmp_path):
    case = load_case(CASES / f"{case}.json")
    hf = build_source(case, tmp_path / "hf")
    assert run("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", *case["hf2mg"]).exit_code == 0
    change(tmp_path / "mg", rank, key)
    refused = run("mg2hf", "--load-dir", tmp_path / "mg", "--save-dir", tmp_path / "back", "--debug")
    assert isinstance(refused.exception, MscvtError)
    assert f"{key} (model of rank tp 1, pp 1, ep 0) differs from" in str(refused.exception)
    assert not (tmp_path / "back").exists()


def test_folder_of_the_configuration_is_not_replaced(tmp_path):
    case = load_case(CASES / "qwen3_tp1_tied.json")
    hf = build_source(case, tmp_path / "hf")
    before = sorted(path.name for path in hf.iterdir())
    assert run("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg").exit_code == 0
    back = run("mg2hf", "--load-dir", tmp_path / "mg", "--save-dir", hf, "--hf-cfg-dir", hf, "--overwrite", "--debug")
    assert isinstance(back.exception, MscvtError)
    assert "which is read" in back.exception.message
    assert sorted(path.name for path in hf.iterdir()) == before
