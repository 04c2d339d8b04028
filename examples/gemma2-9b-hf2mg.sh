#!/bin/sh
# Gemma-2-9B from Hugging Face to Megatron, as the recipe gemma2-9b has it.
# Further options follow the folders: gemma2-9b-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf gemma2 \
    --target-tensor-parallel-size 8 \
    --target-pipeline-parallel-size 1 \
    "$@"
