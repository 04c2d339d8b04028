#!/bin/sh
# Qwen2.5-7B from Hugging Face to Megatron, as the recipe qwen2.5-7b has it.
# Further options follow the folders: qwen2.5-7b-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf qwen25 \
    --target-tensor-parallel-size 4 \
    --target-pipeline-parallel-size 2 \
    "$@"
