#!/bin/sh
# Qwen3-32B back to Hugging Face, as the recipe qwen3-32b has it.
# Further options follow the folders: qwen3-32b-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf qwen3 \
    "$@"
