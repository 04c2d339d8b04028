"""What tests of `mscvt verify` share: running it, damaging checkpoints, and what it says of them."""

import json

import pytest
import torch
from typer.testing import CliRunner

from golden_cases import CASES, build_source, load_case
from mscvt.cli.app import app
from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.reader import load, tensors_in

SHARD = "iter_0000001/mp_rank_{}/model_optim_rng.pt"


def verify(hf, mg, *more):
    """Exit code and report."""
    command = ["verify", "--hf", str(hf), "--mg", str(mg), "--json", *more]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout)


def flip(path, offset):
    """Change the lowest bit of one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def flip_shard(mg, rank, part, key, element):
    path = mg / SHARD.format(rank)
    info = dict(tensors_in(path, 0, load(path)[part], part))[key]
    flip(path, info.offset + element * info.nbytes // info.numel)
    return list(map(int, torch.unravel_index(torch.tensor(element), info.shape)))


def places(report):
    """Which tensors differ, and where."""
    return [f"{each['tensor']}, first at index {each['index']}, in {each['file']}" for each in report["differences"]]


def failing(hf, mg, *more):
    with pytest.raises(MscvtError) as caught:
        verify(hf, mg, "--debug", *more)
    return str(caught.value)


def failing_hint(hf, mg):
    with pytest.raises(MscvtError) as caught:
        verify(hf, mg, "--debug")
    return caught.value.hint


def convert_case(folder, case, *more):
    case = load_case(CASES / f"{case}.json")
    hf, mg = build_source(case, folder / "hf"), folder / "mg"
    arguments = ["hf2mg", "--model-type-hf", case["model_type_hf"], "--load-dir", hf, "--save-dir", mg, *more]
    assert CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).exit_code == 0
    return hf, mg
