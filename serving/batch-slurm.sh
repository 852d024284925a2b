#!/bin/bash
# The shards of a job in a Slurm array, whose first number has to be 0:
#
#   sbatch --array=0-7 serving/batch-slurm.sh /data/jobs/first
#
# A task that is killed or moved is started again and goes on with the shards of its part that are not done. Afterwards:
# maskx batch status, maskx batch merge.
#SBATCH --job-name=maskx-batch
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --requeue
set -euo pipefail
if [ "${SLURM_ARRAY_TASK_MIN:-}" != 0 ]; then
  echo "expected sbatch --array=0-N" >&2
  exit 2
fi
exec maskx batch run "$1" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
