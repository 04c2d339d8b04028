#!/bin/sh
# Seed-OSS-36B back to Hugging Face, as the recipe seed-oss-36b has it.
# Further options follow the folders: seed-oss-36b-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf seed-oss \
    "$@"
