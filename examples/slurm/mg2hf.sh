#!/usr/bin/env bash
# A conversion to Hugging Face as an array of jobs, each of which writes some of the files. How many files there are,
# `mscvt plan mg2hf` says with the same options:
#
#     SOURCE=/shared/qwen3-mcore TARGET=/shared/qwen3-hf FILES=95 sbatch --array=0-7 mg2hf.sh \
#         --hf-cfg-dir /shared/Qwen3-235B-A22B
#
#SBATCH --job-name=mscvt-mg2hf
#SBATCH --cpus-per-task=16
#SBATCH --requeue
set -euo pipefail
: "${SOURCE:?the Megatron checkpoint}" "${TARGET:?the folder to make}" "${FILES:?how many files there will be}"

first=$((FILES * SLURM_ARRAY_TASK_ID / SLURM_ARRAY_TASK_COUNT + 1))
last=$((FILES * (SLURM_ARRAY_TASK_ID + 1) / SLURM_ARRAY_TASK_COUNT))
((first <= last)) || exit 0 # there are more jobs than files

exec mscvt mg2hf --load-dir "$SOURCE" --save-dir "$TARGET" "$@" \
    --workers "${SLURM_CPUS_PER_TASK:-1}" --quiet --only "file=$first-$last"
