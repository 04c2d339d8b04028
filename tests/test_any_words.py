"""Any words on a command line end in an error or a result, and nothing in between.

`MSCVT_EXAMPLES=5000 pytest tests/test_any_words.py` tries other words, and more.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from golden_cases import CASES, build_source, load_case
from mscvt.cli.app import app
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.model.options import rows
from random_models import examples

GARBAGE = st.one_of(
    st.integers().map(str),
    st.integers(-2, 9).map(str),
    st.lists(st.integers(-3, 12), max_size=5).map(lambda numbers: ",".join(map(str, numbers))),
    st.floats().map(str),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(["", ",", "0,", "1,,2", "1e3", "0x10", "None", "true", "--help", "dualpipev", "../..", "\\0"]),
)
SWITCHES = tuple(row.flag for row in rows(Options).values() if row.is_switch)
FLAGS = (*(row.flag for row in rows(Options).values()), "--model-type-hf", "--dtype", "--only")


@pytest.fixture(scope="module")
def golden_sources(tmp_path_factory):
    names = ("llama2_tp1", "qwen3_moe_tp2_ep2_local", "deepseek3_mtp1_pp1_local")
    folder = tmp_path_factory.mktemp("golden")
    return {name: build_source(load_case(CASES / f"{name}.json"), folder / name) for name in names}


@examples(120)
@given(
    case_name=st.sampled_from(["llama2_tp1", "qwen3_moe_tp2_ep2_local", "deepseek3_mtp1_pp1_local"]),
    options=st.dictionaries(st.sampled_from(FLAGS), GARBAGE, min_size=1, max_size=4),
)
def test_command_line_ends_in_an_error_or_a_result_for_any_values(golden_sources, case_name, options):
    with tempfile.TemporaryDirectory() as name:
        words = ["hf2mg", "--load-dir", str(golden_sources[case_name]), "--save-dir", str(Path(name) / "mg")]
        words.append("--debug")  # so that what is no error of ours is not shown as one
        for flag, value in options.items():
            words += [flag] if flag in SWITCHES else [flag, value]
        result = CliRunner().invoke(app, words)
        if result.exit_code == 0:
            assert [path.name for path in Path(name).iterdir()] in (["mg"], [".mg.mscvt"], [])
        else:
            assert isinstance(result.exception, (SystemExit, MscvtError)), (words, result.exc_info)
            assert not list(Path(name).iterdir()), words
