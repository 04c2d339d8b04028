#!/bin/sh
# Qwen3-32B from Hugging Face to Megatron, as the recipe qwen3-32b has it.
# Further options follow the folders: qwen3-32b-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf qwen3 \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 8 \
    "$@"
