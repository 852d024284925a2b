#!/bin/bash
# The shards of a job in N processes of this machine, by GNU parallel:
#
#   serving/batch-parallel.sh jobs/first 4
#
# On a CPU one process per job uses all cores already; this is for machines with many cores. A process that dies is
# started again three times. The processors are divided among the processes.
set -euo pipefail
job=$1
count=$2
threads=$(($(nproc) / count))
export TF_NUM_INTRAOP_THREADS=$((threads > 0 ? threads : 1)) TF_NUM_INTEROP_THREADS=1
seq 0 $((count - 1)) | parallel --jobs "$count" --retries 3 --line-buffer maskx batch run "$job" --shard "{}/$count"
