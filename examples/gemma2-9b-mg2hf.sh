#!/bin/sh
# Gemma-2-9B back to Hugging Face, as the recipe gemma2-9b has it.
# Further options follow the folders: gemma2-9b-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf gemma2 \
    "$@"
