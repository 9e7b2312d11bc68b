#!/usr/bin/env bash
# Bare metal: drivers, device plugin and runtime by NVIDIA's GPU operator, then the labels and taints of values-gpu.yaml.
# usage: bare-metal.sh "NODES WITH FOUR 80 GB GPUS" "NODES WITH SMALL GPUS"
set -euo pipefail
[ $# = 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }

helm repo add nvidia https://helm.ngc.nvidia.com/nvidia
helm upgrade --install gpu-operator nvidia/gpu-operator --namespace gpu-operator --create-namespace --wait

label() {
  local pool=$1 node; shift
  for node in "$@"; do
    kubectl label node "$node" "parley.dev/pool=$pool" --overwrite
    kubectl taint node "$node" nvidia.com/gpu=present:NoSchedule --overwrite
  done
}
read -r -a large <<< "$1"
read -r -a small <<< "$2"
label gpu-large "${large[@]}"
label gpu-small "${small[@]}"
