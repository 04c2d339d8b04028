#!/bin/sh
# DeepSeek-V4-Flash from Hugging Face to Megatron, as the recipe deepseek-v4-flash has it.
# Further options follow the folders: deepseek-v4-flash-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf deepseek4 \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 4 \
    --target-expert-parallel-size 32 \
    --expert-tensor-parallel-size 1 \
    --noop-layers 43 \
    --mtp-num-layers 1 \
    --moe-grouped-gemm \
    "$@"
