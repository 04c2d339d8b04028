#!/bin/sh
# Ling-mini-2.0 back to Hugging Face, as the recipe ling-mini has it.
# Further options follow the folders: ling-mini-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf bailing_mini \
    --moe-grouped-gemm \
    "$@"
