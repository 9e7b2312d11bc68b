#!/usr/bin/env bash
# The end-to-end suite on a kind cluster that this script makes and deletes. Needs docker (or podman) and kind.
#   scripts/e2e-kind.sh [PYTEST ARGUMENTS...]
#   WEIGHTS=FOLDER   weights to install; e.g. weights/pocket; default: seeded ones
#   CLUSTER=NAME     of the kind cluster (parley-e2e)
#   KEEP=1           leave the cluster
# minikube and others: build and load the images as docs/install-kind.md says, then `pytest e2e-tests --kubeconfig FILE`.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

die() { printf 'e2e-kind: %s\n' "$*" >&2; exit 1; }
command -v kind >/dev/null || die "kind is missing: install it, or run 'make e2e-rig', which needs neither kind nor docker"
cluster=${CLUSTER:-parley-e2e}
weights=${WEIGHTS-}
tag=$(sed -n 's/^appVersion: "\(.*\)"$/\1/p' helm/parley/Chart.yaml)

scripts/kube-tools.sh
WEIGHTS=$weights scripts/images.sh
tmp=$(mktemp -d)
cleanup() {
  rm -rf "$tmp"
  [ -n "${KEEP:-}" ] || kind delete cluster --name "$cluster"
}
trap cleanup EXIT
kind create cluster --config k8s/kind.yaml --name "$cluster" --kubeconfig "$tmp/kubeconfig" --wait 120s
names=(gateway tokenizer chat-llm tts vocoder asr-context tools)
[ -z "$weights" ] || names+=(weights)
for name in "${names[@]}"; do kind load docker-image --name "$cluster" "parley-$name:$tag"; done
printf 'gateway: {service: {type: NodePort, nodePort: 30051}}\n' > "$tmp/values.yaml"
# The port that k8s/kind.yaml maps; the network's gateway is this machine, as pods see it.
host=$(docker network inspect kind --format '{{range .IPAM.Config}}{{.Gateway}} {{end}}' 2>/dev/null | tr ' ' '\n' | grep -m1 '\.' || true)
PARLEY_E2E_WEIGHTS=$weights .venv/bin/python -m pytest e2e-tests --kubeconfig "$tmp/kubeconfig" --values "$tmp/values.yaml" \
  --gateway localhost:50051 ${host:+--collector-host "$host"} "$@"
