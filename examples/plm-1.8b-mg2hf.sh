#!/bin/sh
# PLM-1.8B back to Hugging Face, as the recipe plm-1.8b has it.
# Further options follow the folders: plm-1.8b-mg2hf.sh LOAD_DIR SAVE_DIR --hf-cfg-dir ORIGINAL
set -eu
load=$1 save=$2
shift 2
mscvt mg2hf --load-dir "$load" --save-dir "$save" \
    --model-type-hf plm \
    "$@"
