#!/bin/sh
# LongCat-Flash-Chat from Hugging Face to Megatron, as the recipe longcat-flash has it.
# Further options follow the folders: longcat-flash-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf longcat \
    --target-tensor-parallel-size 16 \
    --target-pipeline-parallel-size 4 \
    --target-expert-parallel-size 32 \
    --expert-tensor-parallel-size 1 \
    --moe-grouped-gemm \
    "$@"
