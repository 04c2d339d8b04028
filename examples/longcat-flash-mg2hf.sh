#!/bin/sh
# LongCat-Flash-Chat back to Hugging Face, as the recipe longcat-flash has it.
# Further options follow the folders: longcat-flash-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf longcat \
    --target-tensor-parallel-size 16 \
    --target-pipeline-parallel-size 4 \
    --target-expert-parallel-size 32 \
    --expert-tensor-parallel-size 1 \
    --moe-grouped-gemm \
    "$@"
