#!/bin/sh
# Phi-3.5-mini from Hugging Face to Megatron, as the recipe phi3.5-mini has it.
# Further options follow the folders: phi3.5-mini-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf phi3.5 \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 8 \
    "$@"
