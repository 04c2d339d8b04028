#!/bin/sh
# Phi-3.5-mini back to Hugging Face, as the recipe phi3.5-mini has it.
# Further options follow the folders: phi3.5-mini-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf phi3.5 \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 1 \
    "$@"
