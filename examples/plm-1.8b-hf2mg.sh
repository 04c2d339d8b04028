#!/bin/sh
# PLM-1.8B from Hugging Face to Megatron, as the recipe plm-1.8b has it.
# Further options follow the folders: plm-1.8b-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf plm \
    --target-tensor-parallel-size 1 \
    --target-pipeline-parallel-size 1 \
    "$@"
