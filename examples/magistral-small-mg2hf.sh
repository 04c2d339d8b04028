#!/bin/sh
# Magistral-Small back to Hugging Face, as the recipe magistral-small has it.
# Further options follow the folders: magistral-small-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf magistral \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 1 \
    "$@"
