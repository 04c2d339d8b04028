#!/bin/sh
# Qwen3-235B-A22B back to Hugging Face, as the recipe qwen3-235b has it.
# Further options follow the folders: qwen3-235b-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf qwen3-moe \
    --noop-layers 94,95 \
    --moe-grouped-gemm \
    "$@"
