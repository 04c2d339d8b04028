#!/bin/sh
# DeepSeek-V3.2 back to Hugging Face, as the recipe deepseek-v3.2 has it.
# Further options follow the folders: deepseek-v3.2-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf deepseek32 \
    --moe-grouped-gemm \
    --mla-mm-split \
    --noop-layers 61,62,63 \
    --expert-tensor-parallel-size 1 \
    --mtp-num-layers 1 \
    "$@"
