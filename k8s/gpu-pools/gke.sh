#!/usr/bin/env bash
# Two GPU pools on GKE, labelled and tainted as helm/parley/values-gpu.yaml expects. GKE adds the nvidia.com/gpu taint and the drivers by itself.
# usage: gke.sh CLUSTER LOCATION
set -euo pipefail
[ $# = 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }

# chat-llm: four 80 GB GPUs a node.
gcloud container node-pools create parley-gpu-large --cluster "$1" --location "$2" \
  --machine-type a2-ultragpu-4g --accelerator type=nvidia-a100-80gb,count=4,gpu-driver-version=latest \
  --node-labels parley.dev/pool=gpu-large \
  --enable-autoscaling --min-nodes 0 --max-nodes 4 --num-nodes 1

# tts and vocoder: one 24 GB GPU a node.
gcloud container node-pools create parley-gpu-small --cluster "$1" --location "$2" \
  --machine-type g2-standard-12 --accelerator type=nvidia-l4,count=1,gpu-driver-version=latest \
  --node-labels parley.dev/pool=gpu-small \
  --enable-autoscaling --min-nodes 0 --max-nodes 16 --num-nodes 4
