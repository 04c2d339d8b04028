#!/bin/sh
# Magistral-Small from Hugging Face to Megatron, as the recipe magistral-small has it.
# Further options follow the folders: magistral-small-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf magistral \
    --target-tensor-parallel-size 8 \
    --target-pipeline-parallel-size 1 \
    "$@"
