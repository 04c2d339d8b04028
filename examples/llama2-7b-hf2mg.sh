#!/bin/sh
# Llama-2-7B from Hugging Face to Megatron, as the recipe llama2-7b has it.
# Further options follow the folders: llama2-7b-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf llama2 \
    --target-tensor-parallel-size 8 \
    --target-pipeline-parallel-size 1 \
    "$@"
