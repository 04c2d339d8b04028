#!/bin/sh
# GLM-4.5 from Hugging Face to Megatron, as the recipe glm4.5 has it.
# Further options follow the folders: glm4.5-hf2mg.sh LOAD_DIR SAVE_DIR
set -eu
load=$1 save=$2
shift 2
mscvt hf2mg --load-dir "$load" --save-dir "$save" \
    --model-type-hf glm45 \
    --target-tensor-parallel-size 4 \
    --target-pipeline-parallel-size 4 \
    --target-expert-parallel-size 1 \
    --first-k-dense-replace 3 \
    --moe-grouped-gemm \
    "$@"
