#!/bin/sh
# Qwen2.5-7B back to Hugging Face, as the recipe qwen2.5-7b has it.
# Further options follow the folders: qwen2.5-7b-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf qwen25 \
    "$@"
