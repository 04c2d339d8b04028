#!/bin/sh
# DeepSeek-V4-Flash back to Hugging Face, as the recipe deepseek-v4-flash has it.
# Further options follow the folders: deepseek-v4-flash-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf deepseek4 \
    --noop-layers 43 \
    --mtp-num-layers 1 \
    --moe-grouped-gemm \
    --expert-tensor-parallel-size 1 \
    "$@"
