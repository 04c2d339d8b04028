#!/bin/sh
# Ling-mini-2.0 from Hugging Face to Megatron, as the recipe ling-mini has it.
# Further options follow the folders: ling-mini-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf bailing_mini \
    --moe-grouped-gemm \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 1 \
    --target-expert-parallel-size 8 \
    "$@"
