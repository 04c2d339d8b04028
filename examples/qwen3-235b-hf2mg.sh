#!/bin/sh
# Qwen3-235B-A22B from Hugging Face to Megatron, as the recipe qwen3-235b has it.
# Further options follow the folders: qwen3-235b-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf qwen3-moe \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 4 \
    --target-expert-parallel-size 32 \
    --num-layers-per-virtual-pipeline-stage 8 \
    --noop-layers 94,95 \
    --moe-grouped-gemm \
    "$@"
