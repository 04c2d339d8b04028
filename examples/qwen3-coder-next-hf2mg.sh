#!/bin/sh
# Qwen3-Coder-Next from Hugging Face to Megatron, as the recipe qwen3-coder-next has it.
# Further options follow the folders: qwen3-coder-next-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf qwen3-next \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 8 \
    --target-expert-parallel-size 8 \
    --moe-grouped-gemm \
    "$@"
