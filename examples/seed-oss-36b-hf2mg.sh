#!/bin/sh
# Seed-OSS-36B from Hugging Face to Megatron, as the recipe seed-oss-36b has it.
# Further options follow the folders: seed-oss-36b-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf seed-oss \
    --target-tensor-parallel-size 4 \
    --target-pipeline-parallel-size 4 \
    "$@"
