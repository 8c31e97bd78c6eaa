#!/bin/bash
# A study on Slurm: `sbatch cluster/slurm.sh demo /shared/results` (or s3://bucket/results).
# The nodes need one virtual environment with distforget, under the same path.
#SBATCH --job-name=distforget
#SBATCH --nodes=2                # change
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32       # change: cores of a node
#SBATCH --gpus-per-task=8        # change: GPUs of a node; leave away without any
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail

STUDY=$1 STORE=$2
VENV=${VENV:-$HOME/distforget-venv}                      # change, or set VENV
PORT=$((20000 + SLURM_JOB_ID % 20000))                   # of this job alone, should two share a node
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
ADDRESS=$(srun --nodes=1 --ntasks=1 -w "$HEAD" hostname --ip-address | awk '{print $1}')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(head -c 32 /dev/urandom | xxd -p -c 64)}
export RAY_USAGE_STATS_ENABLED=0

start() { # --head or --address, and further options: blocks until the job ends
  "$VENV/bin/ray" start --block --num-cpus="$SLURM_CPUS_PER_TASK" --node-ip-address="$1" "${@:2}"
}
export -f start; export VENV SLURM_CPUS_PER_TASK

srun --nodes=1 --ntasks=1 -w "$HEAD" bash -c \
  "start $ADDRESS --head --port=$PORT --include-dashboard=false" &
sleep 20
if ((SLURM_JOB_NUM_NODES > 1)); then
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$HEAD" bash -c \
    'start "$(hostname --ip-address | cut -d" " -f1)" --address='"$ADDRESS:$PORT" &
  sleep 20
fi
# The same command goes on where it was: a job that is requeued or sent again loses nothing.
"$VENV/bin/distforget" run "$STUDY" --store "$STORE" --address "$ADDRESS:$PORT"
