"""`--ckpt-format torch_dist`: to and from Hugging Face and every other layout, byte for byte."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from dist_checkpoints import pieces, write_folder
from safetensors.torch import load_file

from command_line import check_refused, make_source, run_main
from mscvt.formats.megatron_dist.checkpoint import DistCheckpoint
from mscvt.formats.megatron_dist.reader import GlobalSource
from mscvt.plan.files import by_size
from mscvt.tensors.computing import values_of
from small_conversions import tree

TO_DIST = ("--dialect", "megatron", "--ckpt-format", "torch_dist")
MODELS = {
    "llama2": ("--tp", 2, "--pp", 2),
    "qwen3-moe": ("--tp", 2, "--ep", 2, "--moe-grouped-gemm"),
    "deepseek3": ("--tp", 2, "--ep", 2, "--mtp-num-layers", 1),
}
"""Model type -> another layout of it: uniform layers, experts, and layers of different kinds with MTP."""


def run(command: str, source: Path, target: Path, *options: object) -> str:
    outcome = run_main(command, "--load-dir", source, "--save-dir", target, *options)
    assert outcome.code == 0, outcome.err
    return outcome.out + outcome.err


def kept(name: str) -> tuple[object, ...]:
    """What decides which layers are taken along."""
    return ("--mtp-num-layers", 1) if name == "deepseek3" else ()


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def converted(name: str, folder: Path) -> tuple[Path, Path]:
    source = make_source(name, folder / "hf")
    run("hf2mg", source, folder / "mg", *TO_DIST, *kept(name))
    return source, folder / "mg"


@pytest.fixture(scope="module")
def folders(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of Hugging Face, and its distributed checkpoint."""
    return converted(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same of one with latent attention, whose first layer has a dense MLP."""
    return converted("deepseek3", tmp_path_factory.mktemp("latent"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for path in sorted(folder.glob("*.safetensors")) for key, value in load_file(path).items()}


def check_equal(ours: Path, theirs: Path) -> None:
    """See that every tensor on the way back is the original's, and only repetitions of others are missing."""
    found, expected = weights(ours), weights(theirs)
    assert found.keys() <= expected.keys()
    assert len(found) > len(expected) - 4
    for key, value in found.items():
        assert value.dtype == expected[key].dtype
        assert torch.equal(value.view(torch.uint8), expected[key].view(torch.uint8)), key


def test_way_back_gives_the_same_bytes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, distributed = folders
    said = run("mg2hf", distributed, tmp_path / "hf", "--hf-cfg-dir", source)
    assert "recognised as megatron in the format torch_dist, because" in said
    check_equal(tmp_path / "hf", source)


def test_both_checkpoints_are_found_equal(folders: tuple[Path, Path]) -> None:
    outcome = run_main("verify", "--hf", folders[0], "--mg", folders[1])
    assert outcome.code == 0, outcome.err
    assert "equal" in outcome.out + outcome.err


def test_from_and_to_files_of_ranks_is_what_hugging_face_gives(
    folders: tuple[Path, Path], name: str, tmp_path: Path
) -> None:
    source, distributed = folders
    options = ("--dialect", "megatron", *MODELS[name])
    run("hf2mg", source, tmp_path / "ranks", *options)
    run("mg2mg", distributed, tmp_path / "from", "--ckpt-format", "torch", *MODELS[name])
    assert tree(tmp_path / "from") == tree(tmp_path / "ranks")
    run("hf2mg", source, tmp_path / "dist", *options, "--ckpt-format", "torch_dist")
    run("mg2mg", tmp_path / "ranks", tmp_path / "to", "--ckpt-format", "torch_dist")
    assert tree(tmp_path / "to") == tree(tmp_path / "dist")


def test_folder_says_what_megatron_asks_it(folders: tuple[Path, Path], name: str) -> None:
    release = folders[1] / "release"
    assert (folders[1] / "latest_checkpointed_iteration.txt").read_text() == "release"
    assert json.loads((release / "metadata.json").read_text())["sharded_backend"] == "torch_dist"
    with torch.serialization.safe_globals([Namespace]):
        common = torch.load(release / "common.pt", weights_only=True)
    assert common["checkpoint_version"] == 3.0
    assert common["iteration"] == 0
    assert common["args"].num_layers > 0
    is_single = name == "deepseek3"
    assert common["content_metadata"].get("non_homogeneous_layers", False) is is_single
    names = DistCheckpoint(folders[1]).some_shapes
    assert ("decoder.layers.mlp.linear_fc2.weight" in names) is (name == "llama2")
    assert ("decoder.layers.1.self_attention.linear_proj.weight" in names) is is_single


def test_layers_stand_alone_where_that_is_asked_for(tmp_path: Path) -> None:
    source = make_source("qwen3-moe", tmp_path / "hf")
    run("hf2mg", source, tmp_path / "mg", *TO_DIST, "--non-homogeneous-layers")
    names = DistCheckpoint(tmp_path / "mg").some_shapes
    assert "decoder.layers.0.mlp.experts.experts.linear_fc1.weight" in names
    run("mg2hf", tmp_path / "mg", tmp_path / "back", "--hf-cfg-dir", source)
    check_equal(tmp_path / "back", source)


def test_parts_of_several_files_are_the_whole(tmp_path: Path) -> None:
    source = make_source("qwen3-moe", tmp_path / "hf")
    with patch("mscvt.jobs.plans.by_size", partial(by_size, limit=100_000)):
        run("hf2mg", source, tmp_path / "whole", *TO_DIST)
        files = sorted((tmp_path / "whole" / "release").glob("__0_*.distcp"))
        assert len(files) > 2
        for part in ("file=2", f"file=3-{len(files)}"):
            run("hf2mg", source, tmp_path / "parts", *TO_DIST, "--only", part)
            assert not (tmp_path / "parts").exists()
        run("hf2mg", source, tmp_path / "parts", *TO_DIST, "--verify")
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    run("mg2hf", tmp_path / "parts", tmp_path / "back", "--hf-cfg-dir", source)
    check_equal(tmp_path / "back", source)


def test_overwriting_replaces_what_the_folder_lists(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source = make_source("llama2", tmp_path / "hf")
    shutil.copytree(folders[1], tmp_path / "mg")
    run("hf2mg", source, tmp_path / "mg", "--dialect", "megatron", "--overwrite")
    assert not (tmp_path / "mg" / "release" / ".metadata").exists()
    run("hf2mg", source, tmp_path / "mg", *TO_DIST, "--overwrite")
    assert not list((tmp_path / "mg" / "release").glob("mp_rank*"))
    run("mg2hf", tmp_path / "mg", tmp_path / "back", "--hf-cfg-dir", source)
    check_equal(tmp_path / "back", source)


def test_parallel_sizes_are_said_to_change_nothing(tmp_path: Path) -> None:
    source = make_source("llama2", tmp_path / "hf")
    unpadded = (*TO_DIST, "--make-vocab-size-divisible-by", 1)
    said = run("hf2mg", source, tmp_path / "mg", *unpadded)
    assert "decide args, flags and padding alone" not in said
    said = run("hf2mg", source, tmp_path / "sized", *unpadded, "--tp", 2)
    assert "--target-tensor-parallel-size: decide args, flags and padding alone" in said
    assert "--tensor-model-parallel-size 2" in said
    plain, sized = (tree(tmp_path / name / "release") for name in ("mg", "sized"))
    assert {name for name in plain if plain[name] != sized[name]} == {"common.pt"}


def test_layers_alone_mean_nothing_in_files_of_ranks(tmp_path: Path) -> None:
    source = make_source("llama2", tmp_path / "hf")
    options = ["--dialect", "megatron", "--non-homogeneous-layers"]
    check_refused("hf2mg", source, tmp_path / "mg", options, ["means nothing without --ckpt-format torch_dist"])


def test_dialect_without_the_format_refuses_it(tmp_path: Path) -> None:
    source = make_source("llama2", tmp_path / "hf")
    options = ["--ckpt-format", "torch_dist"]
    check_refused("hf2mg", source, tmp_path / "mg", options, ["--ckpt-format"])


def plain_copy(source: Path, folder: Path, wrapping: str) -> Path:
    """What FSDP2 training saves: rows divided among ranks, under the names of transformers, an optimizer beside."""
    chunks = {}
    for key, value in weights(source).items():
        cuts = [[(len(value) + 1) // 2] if len(value) > 1 else [], *([] for _ in value.shape[1:])]
        chunks[wrapping + key] = list(pieces(value, cuts))
    moments = {f"optimizer.state.{key}.exp_avg": [((0,), torch.zeros(3))] for key in chunks}
    return write_folder(folder, chunks | moments, {"dataloader": {"step": 7}})


@pytest.mark.parametrize("wrapping", ["", "model."])
def test_plain_folder_in_hugging_faces_names_becomes_its_files(
    folders: tuple[Path, Path], wrapping: str, tmp_path: Path
) -> None:
    folder = plain_copy(folders[0], tmp_path / "dcp", wrapping)
    said = run("mg2hf", folder, tmp_path / "hf", "--hf-cfg-dir", folders[0])
    assert "recognised as a plain folder of torch.distributed.checkpoint" in said
    found, expected = weights(tmp_path / "hf"), weights(folders[0])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key].view(torch.uint8), expected[key].view(torch.uint8)) for key in found)


def test_plain_folder_of_an_unknown_model_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = plain_copy(folders[0], tmp_path / "dcp", "")
    check_refused("mg2hf", folder, tmp_path / "hf", [], ["doesn't say what model it is of", "--hf-cfg-dir"])
    write_folder(folder, {"model.embed_tokens.weight": [((0, 0), torch.zeros(3, 4))]})
    check_refused("mg2hf", folder, tmp_path / "hf", ["--hf-cfg-dir", str(folders[0])], ["missing:"])


Renaming = Callable[[str, torch.Tensor], dict[str, torch.Tensor]]
"""Name and global tensor -> the tensors that another saver makes of it."""


def one_by_one(name: str, whole: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `singleton_local_shards` makes of a tensor: one for each layer, expert, gate and up projection."""
    front, between, rest = name.partition("decoder.layers.")
    if between and not rest[0].isdigit():
        singles = {f"{between}{layer}.{rest}": part for layer, part in enumerate(whole)}
        return {key: part for single, value in singles.items() for key, part in one_by_one(single, value).items()}
    front, between, rest = name.partition(".experts.experts.")
    if between and not rest[0].isdigit():
        singles = {f"{front}{between}{expert}.{rest}": part for expert, part in enumerate(whole)}
        return {key: part for single, value in singles.items() for key, part in one_by_one(single, value).items()}
    if name.endswith("linear_fc1.weight"):
        return {f"{name}_{half}": part for half, part in zip("wv", whole.chunk(2), strict=True)}
    return {name: whole}


def of_0_10(name: str, whole: torch.Tensor) -> dict[str, torch.Tensor]:
    """Latent attention as 0.10 has it, whose norms were modules of their own."""
    for kind in ("q", "kv"):
        name = name.replace(f"linear_{kind}_up_proj.layer_norm_weight", f"{kind}_layernorm.weight")
    return {name: whole}


def saved_by_another(folder: Path, target: Path, how: Renaming, **changes: object) -> Path:
    """The same checkpoint under other names, with what `common.pt` held in an object, as since 0.19."""
    source = GlobalSource(folder / "release", lambda name: "_extra_state" not in name)
    tensors: dict[str, torch.Tensor] = {}
    for name, info in source.tensors.items():
        if name.replace("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight") in source.tensors.keys() - {
            name
        }:
            continue  # who saves has it under one of its names
        strides = torch.empty(info.shape, device="meta").stride()
        tensors |= how(name, values_of(source.tensor(name), 0, info.shape, strides))
    with torch.serialization.safe_globals([Namespace]):
        common = torch.load(folder / "release" / "common.pt", weights_only=True)
    objects = {"common_state/shard_0_1": [common], "rng_state/shard_0.0_1.1": [{"seed": 1}]} | changes
    tensors |= {key: objects.pop(key) for key in [*objects] if isinstance(objects[key], torch.Tensor)}
    chunks = {
        name: list(pieces(value, [[], *([] for _ in value.shape[1:])]))
        for name, value in tensors.items()
        if objects.pop(name, value) is not None
    }
    write_folder(target / "iter_0000005", chunks, objects)
    (target / "iter_0000005" / "metadata.json").write_text('{"sharded_backend": "torch_dist"}')
    (target / "latest_checkpointed_iteration.txt").write_text("5")
    return target


def test_layers_experts_and_projections_one_by_one_are_read(folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder = saved_by_another(folders[1], tmp_path / "mg", one_by_one)
    run("mg2hf", folder, tmp_path / "hf", "--hf-cfg-dir", folders[0])
    check_equal(tmp_path / "hf", folders[0])


def test_latent_attention_of_0_10_is_read(latent: tuple[Path, Path], tmp_path: Path) -> None:
    run("mg2hf", saved_by_another(latent[1], tmp_path / "mg", of_0_10), tmp_path / "hf", "--hf-cfg-dir", latent[0])
    check_equal(tmp_path / "hf", latent[0])


UP = "decoder.layers.0.mlp.linear_fc1.weight_v"
LATENT_NORM = "decoder.layers.0.self_attention.linear_kv_up_proj.layer_norm_weight"
CONTRADICTIONS = {
    "half of it is missing": (one_by_one, {UP: None}, "missing"),
    "halves of other widths": (one_by_one, {UP: torch.zeros(3, 5)}, "have shapes that don't belong together"),
    "one more layer": (one_by_one, {"decoder.layers.77.mlp.linear_fc2.weight": torch.zeros(3, 5)}, "decoder.layers.77"),
    "both names of a norm": (of_0_10, {LATENT_NORM: torch.zeros(5)}, "is there twice"),
    "a state of two": (one_by_one, {"common_state/shard_0_1": [{}, {}]}, "common_state/shard_0_1: holds list"),
    "a state of text": (one_by_one, {"common_state/shard_0_1": ["args"]}, "common_state/shard_0_1: holds str"),
}


@pytest.mark.parametrize(("how", "changes", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_another_saved_is_refused_where_it_contradicts_itself(
    how: Renaming,
    changes: dict[str, object],
    said: str,
    latent: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    folder = saved_by_another(latent[1], tmp_path / "mg", how, **changes)
    check_refused("mg2hf", folder, tmp_path / "hf", ["--hf-cfg-dir", str(latent[0])], [said])
