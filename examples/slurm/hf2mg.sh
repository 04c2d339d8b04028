#!/usr/bin/env bash
# A conversion to Megatron as an array of jobs, one for each pipeline stage:
#
#     SOURCE=/shared/Qwen3-235B-A22B TARGET=/shared/qwen3-mcore sbatch --array=0-7 hf2mg.sh \
#         --target-pipeline-parallel-size 8 --target-expert-parallel-size 16 --moe-grouped-gemm
#
#SBATCH --job-name=mscvt-hf2mg
#SBATCH --cpus-per-task=16
#SBATCH --requeue
set -euo pipefail
: "${SOURCE:?the Hugging Face checkpoint}" "${TARGET:?the folder to make}"

exec mscvt hf2mg --load-dir "$SOURCE" --save-dir "$TARGET" "$@" \
    --workers "${SLURM_CPUS_PER_TASK:-1}" --quiet --only "pp=$SLURM_ARRAY_TASK_ID"
