#!/bin/sh
# DeepSeek-V3.2 from Hugging Face to Megatron, as the recipe deepseek-v3.2 has it.
# Further options follow the folders: deepseek-v3.2-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf deepseek32 \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 8 \
    --target-expert-parallel-size 64 \
    --moe-grouped-gemm \
    --mla-mm-split \
    --noop-layers 61,62,63 \
    --expert-tensor-parallel-size 1 \
    --mtp-num-layers 1 \
    "$@"
