#!/bin/bash
# Several nodes under SLURM, one launcher a node, which starts a process for each of its GPUs:
#   sbatch --nodes 2 examples/slurm.sh pgpo --config examples/pgpo_paper.yaml
#   sbatch --nodes 2 examples/slurm.sh iga --config my_run.yaml
# ENGINE=examples/engines/zero2.yaml chooses another engine. Nodes share the folder that this is
# started from, the output_dir and the model's cache.
#SBATCH --job-name=poise
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
set -euo pipefail

export ENGINE=${ENGINE:-examples/engines/fsdp2.yaml}
export GPUS=${SLURM_GPUS_ON_NODE:-8}
export MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PORT=$((20000 + SLURM_JOB_ID % 20000))

# The launcher's flags win over what the configuration says of one node.
srun --kill-on-bad-exit=1 bash -c 'exec poise "$@" \
  --accelerate_config "$ENGINE" --same_network \
  --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * GPUS))" \
  --machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER" --main_process_port "$PORT"' poise "$@"
