#!/bin/sh
# GLM-4.5 back to Hugging Face, as the recipe glm4.5 has it.
# Further options follow the folders: glm4.5-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf glm45 \
    --moe-grouped-gemm \
    "$@"
