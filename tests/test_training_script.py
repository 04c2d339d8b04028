"""Options that are read out of a script that starts training; bash itself is asked what its commands are given."""

import subprocess
from pathlib import Path

import pytest

from command_line import make_source, run_main
from mscvt.cli.shell_text import read_script
from mscvt.errors import MscvtError

SCRIPT = r"""#!/bin/bash
# what launch scripts are made of
export CUDA_DEVICE_MAX_CONNECTIONS=1   # a comment with a ' in it
TP=2; PP="${STAGES:-2}"
EP=${EP:=4} VPP='1'
: ${ETP:=$((1 + 1))}
GPT_ARGS="
    --num-layers 8 \
    --hidden-size 64
    --tensor-model-parallel-size ${TP}"
MORE=(
    --pipeline-model-parallel-size "$PP"   # stages
    --num-layers-per-virtual-pipeline-stage=$VPP
    --tokenizer 'a b' --note "it costs \$5, \"really\"" ''
)
MORE+=(--swiglu --path=$HOME_OF_NOBODY/x)
GPT_ARGS+=" --bf16"
GPT_ARGS="$GPT_ARGS --expert-model-parallel-size $EP "
EMPTY=
run() { true; }
show $GPT_ARGS "${MORE[@]}" $EMPTY "$EMPTY" ${MORE[@]} x$TP'y'"z $TP" -- \
    --last a\ b >log 2>&1 && show --chained 2>/dev/null | cat
ONE=(--one)
ONE+=(--two)
ONE+=-half
TP=9 show "${ONE[@]}" $TP
show $TP
"""


def words_of_bash(folder: Path, script: str) -> list[list[str]]:
    """What bash gives the command `show`, which writes its words to a file."""
    head = f"show() {{ printf '%s\\0' \"$@\" end >> {folder}/shown; }}\ncd {folder}\n"
    subprocess.run(["bash", "-c", head + script], check=True, timeout=60)
    calls: list[list[str]] = [[]]
    for word in (folder / "shown").read_bytes().decode().split("\0")[:-1]:
        calls = [*calls, []] if word == "end" else [*calls[:-1], [*calls[-1], word]]
    return calls[:-1]


def test_commands_are_given_what_bash_gives_them(tmp_path):
    script = read_script(SCRIPT)
    ours = [list(call.words[1:]) for call in script.calls if call.words[0] == "show"]
    marked = [word for word in ours[0] if script.unknown_in(word)]
    assert [script.unknown_in(word) for word in marked] == [["$HOME_OF_NOBODY, which is not set there"]] * 2
    known = [["--path=/x" if script.unknown_in(word) else word for word in call] for call in ours]
    assert known == words_of_bash(tmp_path, SCRIPT)


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("if [ $A = 1 ]; then X=1; fi\nrun $X", "$X, which is set under a condition"),
        ("X=1\n[ -n $A ] && X=2\nY=3\nrun $X $Y", "$X, which is set under a condition"),
        ("X=--a\nif true; then\n X+=' --b'\nfi\nrun $X", "what is added to $X under a condition"),
        ("for X in 1 2; do run $X; done", "$X, which a loop sets"),
        ("run $(nproc --all)", "$(nproc --all)"),
        ("run `nproc`", "`nproc`"),
        ("X=$((2 * 4))\nrun $X", "$((2 * 4))"),
        ("run ${X%/*}", "${X%/*}"),
        ("run $1", "$1, which is not set there"),
    ],
)
def test_what_only_running_would_tell_is_named(text, unknown):
    script = read_script(text)
    call = next(call for call in script.calls if call.words[0] == "run")
    assert [what for word in call.words for what in script.unknown_in(word)] == [unknown]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A='b\nc", "line 1: ' is not closed"),
        ('\nA="b', 'line 2: " is not closed'),
        ("A=(b", "line 1: ( is not closed"),
        ("A=${B", "line 1: { is not closed"),
        ("A=b\0", "is no shell script"),
        ("A=aaaaaaaaaaaaaaaa\n" + "A=$A$A\n" * 40, "more than 262144 characters"),
        ('A=("" "")\n' + 'A=("${A[@]}" "${A[@]}")\n' * 22, "more than 262144 characters"),
        ("A=" + "${A:-" * 250 + "}" * 250, "is no shell script"),
    ],
)
def test_text_that_is_no_script_is_refused(text, said):
    with pytest.raises(MscvtError) as caught:
        read_script(text)
    assert said in caught.value.message


def test_options_of_a_script_are_taken_and_what_it_says_otherwise_is_said(tmp_path):
    source, script = make_source("qwen3-moe", tmp_path / "hf"), tmp_path / "train.sh"
    script.write_text(
        'TP=2\nARGS="--tensor-model-parallel-size $TP --num-layers 40 --swiglu"\nif $GROUPED; then\n'
        '    ARGS="$ARGS"\n    ARGS+=" --moe-grouped-gemm"\nfi\n'
        "torchrun $NODES train.py $ARGS --pipeline-model-parallel-size $PP --expert-model-parallel-size 2\n"
    )

    def plan(*options):
        return run_main("plan", "hf2mg", "--load-dir", source, "--from-training-script", script, *options)

    refused = plan()
    assert (refused.code, refused.out) == (2, "")
    assert "line 7: --pipeline-model-parallel-size takes $PP, which is not set there" in refused.err
    assert "Give it here: --target-pipeline-parallel-size N." in refused.err
    taken = plan("--pp", "1")
    assert taken.code == 0
    assert "4 ranks (tp 2, pp 1, ep 2)" in taken.out
    for note in (
        "options are not seen in $NODES, which is not set there",
        "options are not seen in what is added to $ARGS under a condition",
        "--num-layers 40 is not what the checkpoint needs: ",
    ):
        assert f"note: {script}: {note}" in taken.out
    assert taken.out.count("note: ") == 3
    contradicted = plan("--pp", "1", "--tp", "4")
    assert f"--target-tensor-parallel-size 4 is given, and {script} has 2" in contradicted.err
    script.write_text('if $LARGE; then\n    ARGS="--tensor-model-parallel-size 8"\nfi\ntorchrun train.py $ARGS\n')
    hidden = plan().err
    assert "no command in it has a parallel option" in hidden
    assert "Nor is known: $ARGS, which is set under a condition." in hidden
    script.unlink()
    assert "no such file" in plan().err
