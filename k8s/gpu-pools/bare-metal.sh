#!/usr/bin/env bash
# Bare metal: drivers, device plugin and runtime by NVIDIA's GPU operator, then the labels and taints of values-gpu.yaml.
# usage: bare-metal.sh "NODES WITH FOUR 80 GB GPUS" "NODES WITH SMALL GPUS"
#   GPU_OPERATOR_REPOSITORY=URL   Helm repository with the chart gpu-operator: NVIDIA's, whose address its documentation gives,
#                                 or a mirror of your own
#   GPU_OPERATOR=CHART            instead of it, what `helm install` takes: an archive, a folder, oci://..., ALIAS/gpu-operator
#   GPU_OPERATOR_VERSION=VERSION  of the chart; pin it
set -euo pipefail
[ $# = 2 ] || { sed -n '2,7s/^# //p' "$0" >&2; exit 2; }

chart=(gpu-operator --repo "${GPU_OPERATOR_REPOSITORY:-}")
[ -z "${GPU_OPERATOR:-}" ] || chart=("$GPU_OPERATOR")
[ -n "${GPU_OPERATOR:-}${GPU_OPERATOR_REPOSITORY:-}" ] || { echo "bare-metal: set GPU_OPERATOR_REPOSITORY or GPU_OPERATOR" >&2; exit 2; }
helm upgrade --install gpu-operator "${chart[@]}" ${GPU_OPERATOR_VERSION:+--version "$GPU_OPERATOR_VERSION"} \
  --namespace gpu-operator --create-namespace --wait

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
