"""`mscvt plan` and `--dry-run`: the pipeline, the files, one rank, one tensor, before a byte moves."""

import json
import re
import shlex
import shutil
from math import prod

import pytest

from command_line import make_source, run_main
from json_keys import check_object
from mscvt.cli.lines import print_lines
from mscvt.cli.training_meanings import FAMILYS
from mscvt.views.files import SizedFile, group_files
from mscvt.views.pipeline import LETTERS, Cell, Pipeline, Row
from mscvt.views.preview import Side
from mscvt.views.terminal import side_text

LAYOUT = ["--tp", 2, "--pp", 2, "--ep", 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sources of two models, and one of them converted."""
    folder = tmp_path_factory.mktemp("planned")
    make_source("qwen3-moe", folder / "moe")
    make_source("deepseek32", folder / "mtp")
    assert run_main("hf2mg", "--load-dir", folder / "moe", "--save-dir", folder / "mg", *LAYOUT).code == 0
    return folder


def plan(*arguments):
    outcome = run_main("plan", *arguments)
    assert (outcome.code, outcome.err.count("error")) == (0, 0), outcome.err
    return outcome.out


def planned(*arguments):
    shown = json.loads(plan(*arguments, "--json"))
    check_object("plan", shown)
    assert shown["command"] == "plan"
    assert shown["is_dry_run"] is True
    return shown


def test_pipeline_is_a_grid_with_the_numbers_of_both_sides(folder):
    options = ["--moe-grouped-gemm", "--mtp-num-layers", 1, "--schedules-method", "dualpipev"]
    out = plan("hf2mg", "--load-dir", folder / "mtp", *LAYOUT, *options, "--noop-layers", "0,3,5,7")
    grid = out.partition("chunk")[2].partition("\n")[2].partition(" E  embedding")[0]
    assert [line.split() for line in grid.splitlines()] == [
        ["model0", "E"],
        ["0", "-", "M", "1"],
        ["1", "D", "0", "-"],
        ["model1", "E"],
        ["0", "M", "3", "M", "2"],
        ["1", "-", "-"],
        ["P", "4"],
        ["N"],
        ["H"],
    ]
    legend = out.partition(" E  embedding")[2].partition("layer:")[0]
    assert [word in legend for word in ("dense", "MoE", "noop", "MTP", "final norm", "output layer")] == [True] * 6
    assert max(map(len, legend.splitlines())) <= 80
    assert "experts 4-7  tp {0-1} ep 1\n" in out


def timeless(shown):
    """A plan without the command that goes on with it, and without the space, which others use too."""
    return re.sub(r"go on with: .*\n|[0-9.]+ [kMGT]?B are free there", "", shown)


def test_dry_run_is_the_same_plan_and_nothing_is_written(folder, tmp_path):
    arguments = ["--load-dir", folder / "moe", "--save-dir", tmp_path / "made", *LAYOUT]
    shown = plan("hf2mg", *arguments)
    assert timeless(run_main("hf2mg", *arguments, "--dry-run").out) == timeless(shown)
    go_on = shlex.split(shown.splitlines()[-1].removeprefix("go on with: mscvt "))
    assert go_on == ["hf2mg", *map(str, arguments)]
    back = ["--load-dir", folder / "mg", "--save-dir", tmp_path / "back"]
    assert timeless(run_main("mg2hf", *back, "--dry-run").out) == timeless(plan("mg2hf", *back))
    assert list(tmp_path.iterdir()) == []


def test_plan_of_another_layout_shows_the_source_and_the_result(folder):
    shown = planned("mg2mg", "--load-dir", folder / "mg", "--pp", 4)
    assert [(side["is_source"], side["pipeline"]["stages"]) for side in shown["sides"]] == [(True, 2), (False, 4)]
    assert (shown["target"], shown["free"]) == (None, None)
    kinds = [[cell and cell["kind"] for cell in row["cells"]] for row in shown["sides"][1]["pipeline"]["rows"]]
    assert kinds == [["embedding", None, None, None], ["experts"] * 4, [None] * 3 + ["norm"], [None] * 3 + ["head"]]
    slots = [cell["slot"] for cell in shown["sides"][1]["pipeline"]["rows"][1]["cells"]]
    assert slots == [0, 1, 2, 3]


def test_free_space_is_compared_where_a_target_is_given(folder, tmp_path, monkeypatch):
    arguments = ["hf2mg", "--load-dir", folder / "moe", "--save-dir", tmp_path / "far" / "away"]
    free = shutil.disk_usage(tmp_path).free
    assert 0.9 < planned(*arguments)["free"] / free < 1.1
    assert " are free there, enough\n" in plan(*arguments)
    monkeypatch.setattr("mscvt.jobs.preview.free_space", lambda path: 1000)
    assert "; 1.0 kB are free there, NOT enough\n" in plan(*arguments)
    assert " free" not in plan(*arguments[:3])


@pytest.mark.parametrize("direction", ["hf2mg", "mg2hf"])
def test_rank_shows_every_tensor_of_its_file_and_no_other(direction, folder):
    source = folder / ("moe" if direction == "hf2mg" else "mg")
    layout = LAYOUT if direction == "hf2mg" else []
    whole = planned("hf2mg", "--load-dir", folder / "moe", *LAYOUT)
    for file, rank in ((0, "tp=0,pp=0,ep=0"), (7, "tp=1,pp=1,ep=1")):
        shard = planned(direction, "--load-dir", source, *layout, "--rank", rank)["shard"]
        there = whole["files"][file]
        assert sum(row["nbytes"] for row in shard["rows"]) == there["bytes"]
        assert sum(row["count"] for row in shard["rows"]) == there["tensors"]
    row = next(row for row in shard["rows"] if "linear_qkv" in row["keys"])
    assert row == {
        "chunk": "model",
        "keys": "decoder.layers.{0-1}.self_attention.linear_qkv.weight",
        "count": 2,
        "shape": [80, 48],
        "dtype": "BF16",
        "nbytes": 2 * 80 * 48 * 2,
        "sources": [
            "model.layers.{2-3}.self_attn.q_proj.weight[40:80, :]",
            "model.layers.{2-3}.self_attn.k_proj.weight[20:40, :]",
            "model.layers.{2-3}.self_attn.v_proj.weight[20:40, :]",
        ],
    }
    experts = next(row for row in shard["rows"] if "linear_fc2" in row["keys"])
    assert experts["sources"] == ["model.layers.{2-3}.mlp.experts.{4-7}.down_proj.weight[:, 12:24]"]


def test_tensor_shows_its_way_to_every_rank_that_holds_some_of_it(folder):
    name = "model.layers.1.self_attn.k_proj.weight"
    (way,) = planned("hf2mg", "--load-dir", folder / "moe", *LAYOUT, "--tensor", name)["ways"]
    assert (way["role"], way["shape"], way["cut"], way["of"]) == ("attention.k", [40, 48], "tp: group", "")
    assert [(stop["ranks"], stop["region"], stop["place"]) for stop in way["stops"]] == [
        (["tp 0 pp 0 ep {0-1}"], "[0:20, :]", "[20:30 60:70, :]"),
        (["tp 1 pp 0 ep {0-1}"], "[20:40, :]", "[20:30 60:70, :]"),
    ]
    elements = [prod(span["length"] * span["count"] for span in stop["spans"]) for stop in way["stops"]]
    assert sum(elements) == prod(way["shape"])
    out = plan("mg2mg", "--load-dir", folder / "mg", "--tp", 1, "--tensor", name)
    assert [line.split()[2] for line in out.splitlines() if line.startswith(f"{name}[")] == ["<-", "<-"]
    assert "all of it  ->  pp 0 ep {0-1}  model  decoder.layers.1.self_attention.linear_qkv.weight" in out
    assert "would write" not in out


def test_training_args_are_shown_alone_with_what_each_is_for(folder):
    for source, dialect in (("moe", "mindspeed"), ("moe", "megatron"), ("mtp", "mindspeed")):
        words = ["hf2mg", "--load-dir", folder / source, "--dialect", dialect]
        flags = planned(*words)["training_flags"]
        pasted, _, meanings = plan(*words, "--training-args").partition("\n\nwhat they are for:\n")
        assert shlex.split(pasted.partition("\n")[2].replace("\\\n", "")) == flags
        explained = [line.split(maxsplit=1) for line in meanings.splitlines() if line.startswith("    ")]
        assert [name for name, _ in explained] == [word for word in flags if word.startswith("--")]
        assert not any(FAMILYS in meaning for _, meaning in explained)
    refused = run_main("plan", "mg2hf", "--load-dir", folder / "mg", "--training-args")
    assert "nothing is told to a training script on the way to Hugging Face" in refused.err


def test_tensor_in_grouped_experts_is_placed_by_the_axes_of_memory(folder):
    asked = ["--moe-grouped-gemm", "--tensor", "model.layers.1.mlp.experts.5.up_proj.weight"]
    (way,) = planned("hf2mg", "--load-dir", folder / "moe", *LAYOUT, *asked)["ways"]
    seen = "seen as [expert 4, hidden 48, half 2, moe_ffn 12]: [1:2, :, 1:2, :]"
    assert [(stop["ranks"], stop["region"], stop["place"]) for stop in way["stops"]] == [
        (["tp 0 pp 0 ep 1"], "[0:12, :]", seen),
        (["tp 1 pp 0 ep 1"], "[12:24, :]", seen),
    ]


def test_tensor_shows_the_copies_that_other_stages_have_of_it_too(folder):
    asked = ["--tensor", "model.embed_tokens.weight", "--mtp-num-layers", 1]
    (way,) = planned("hf2mg", "--load-dir", folder / "mtp", "--pp", 2, *asked)["ways"]
    assert [stop["ranks"] for stop in way["stops"]] == [["pp 0"], ["pp 1"]]


def test_wrong_ranks_tensors_and_ways_are_errors_with_the_way_out(folder):
    given = ["hf2mg", "--load-dir", folder / "moe", *LAYOUT]
    for words, said in {
        ("--rank", "pp=1"): ["4 ranks are so; there are tp 0-1, pp 0-1, ep 0-1", "Say one number of each"],
        ("--rank", "pp=2,tp=0,ep=0"): ["0 ranks are so"],
        ("--rank", "stage 3"): ["can't understand 'stage3'", "Write it like pp=1,tp=0,ep=3."],
        ("--tensor", "model.norm.wieght"): ["no tensor of this name", "Did you mean model.norm.weight?"],
    }.items():
        outcome = run_main("plan", *given, *words)
        assert outcome.code == 1
        assert all(text in outcome.err for text in said), outcome.err
    left_out = ["hf2mg", "--load-dir", folder / "mtp", "--tensor", "model.layers.4.eh_proj.weight"]
    assert "is not converted: MTP layers not asked for" in run_main("plan", *left_out).err
    assert "--direction hf2gm: must be one of" in run_main("plan", "hf2gm", "--load-dir", folder).err
    assert run_main("plan", "hf2mg", "--load-dir", folder / "moe", "--overwrite").code == 2


def test_ranks_of_a_stage_are_one_line_however_many(folder):
    files = [
        SizedFile(f"mp_rank_{t:02d}_{p:03d}_{e:03d}", 4 * (3 + p), 1, p)
        for t in range(8)
        for p in range(4)
        for e in range(16)
    ]
    groups = group_files(files)
    assert [(group.paths, group.count, group.total) for group in groups] == [
        (f"mp_rank_{{00-07}}_{p:03d}_{{000-015}}", 128, 128 * (3 + p) * 4) for p in range(4)
    ]
    back = [SizedFile(f"model-0000{n}-of-00003", 4 * n, 1, None) for n in (1, 2, 3)]
    (group,) = group_files(back)
    assert (group.paths, group.nbytes, group.total) == ("model-{00001-00003}-of-00003", (4, 12), 24)


def shown_on(width, rows, stages, capsys):
    pipeline = Pipeline(1, stages, 1, stages, is_whole=False, rows=tuple(rows))
    print_lines(side_text(Side(is_source=False, pipeline=pipeline, experts=()), width))
    return capsys.readouterr().out


def test_many_stages_are_in_bands_and_long_runs_of_layers_in_one_line(capsys):
    rows = [Row("model", i, tuple(Cell("dense", s * 20 + i, s * 20 + i) for s in range(12))) for i in range(20)]
    text = shown_on(80, rows, 12, capsys)
    lines = [line for line in text.splitlines() if re.match(r"chunk|model", line)]
    assert [line.split()[:3] for line in lines[::2]] == [["chunk", "layer", "stage"]] * (len(lines) // 2)
    assert max(map(len, lines)) <= 80
    assert "0-19" in lines[1]
    assert re.findall(r"D (\S+)", text) == [f"{s * 20}-{s * 20 + 19}" for s in range(12)]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["30", "48;5;151", "0", "2", "0"]),
        ({"COLORTERM": "truecolor"}, ["30", "48;2;167;220;174", "0", "2", "0"]),
        ({"NO_COLOR": "1"}, []),
        ({"TERM": "dumb"}, []),
    ],
)
def test_colours_have_letters_beside_them_and_go_where_nobody_wants_them(variables, expected, monkeypatch, capsys):
    rows = [Row("model", 0, (Cell("experts", 7, 7), Cell("noop", None, 1)))]
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **variables}.items():
        monkeypatch.setenv(name, value)
    plain = shown_on(80, rows, 2, capsys)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = shown_on(80, rows, 2, capsys)
    (cells,) = (line for line in shown.splitlines() if line.startswith("model"))
    assert re.findall(r"\x1b\[([^m]*)m", cells) == expected
    assert re.sub(r"\x1b\[[^m]*m", "", shown) == plain
    assert re.search(r"M 7\s+-", plain)


def test_every_kind_of_cell_has_a_colour_of_its_own(monkeypatch, capsys):
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [Row("model", 0, tuple(Cell(kind, 7, 7) for kind in LETTERS))]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    (cells,) = (line for line in shown_on(200, rows, len(LETTERS), capsys).splitlines() if line.startswith("model"))
    assert len(set(re.findall(r"48;5;\d+", cells))) == len(LETTERS) - 1  # a slot without a layer is grey
