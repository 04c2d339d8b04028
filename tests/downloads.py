"""What tests of downloads share: a small model on a hub, what is needed of it, and how a run looks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from command_line import run_main
from golden_cases import CASES, build_source, load_case

NAME = "mine/Small-1B"
SHARD = "model-00001-of-00002.safetensors"
LAST = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
EXTRA = {
    "README.md": b"# Small\n",
    "tokenizer.json": b"{}",
    "modeling_small.py": b"raise SystemExit\n",
    "pytorch_model.bin": b"the same again",
    "tf_model.h5": b"and again",
    "original/consolidated.00.pth": b"and again",
    "original/params.json": b"{}",
    "params.json": b"{}",
    ".gitattributes": b"",
}
NEEDED = {"config.json", "tokenizer.json", "modeling_small.py", INDEX, SHARD, LAST}


@cache
def model_files() -> dict[str, bytes]:
    """The files of a model in two shards; don't change them."""
    case = load_case(CASES / "llama2_tp1.json")
    case["hf"]["shards"] = 2
    with TemporaryDirectory() as folder:
        build_source(case, Path(folder) / "hf")
        files = {path.name: path.read_bytes() for path in Path(folder, "hf").iterdir()}
    assert {INDEX, SHARD, LAST, "config.json"} <= files.keys()
    return files


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def check_whole(folder: Path) -> None:
    """Fail unless the folder has exactly what a conversion needs, and nothing on its way."""
    assert names_in(folder) == NEEDED | {".mscvt-download.json"}
    expected = {**EXTRA, **model_files()}
    assert all((folder / name).read_bytes() == expected[name] for name in NEEDED)


def refused(*words: object) -> str:
    """Run a download that must end with one error; returns it."""
    outcome = run_main("download", *words)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.count("error: ") == 1
    return outcome.err
