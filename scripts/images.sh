#!/usr/bin/env bash
# Builds the images with docker, podman or buildah, whichever works here.
#   scripts/images.sh [SERVICE...]         default: all six, the tools, and the weights when WEIGHTS is set
#   TAG=0.1.0                              tag of everything
#   REGISTRY=registry.example.com/speech   prefix of the names; empty: short names, as the chart's default
#   GPU=1                                  also the five stages on the official vLLM image, as TAG-gpu
#   WEIGHTS=FOLDER                         also parley-weights, an image with that folder (it must hold a parley.json)
#   SBOM=FOLDER                            write each service's bill of materials (CycloneDX, from /opt/parley/sbom.cdx.json) there
#   PUSH=1                                 push what was built
#   ENGINE=docker|podman|buildah           instead of the first that works
#   BASE=IMAGE VLLM=IMAGE                  pinned bases (by digest in a release)
#   TORCH_INDEX=URL                        PyTorch's index of CPU wheels; without one pip finds torch where it is configured
#                                          to look, on x86 with CUDA, and images are gigabytes larger
#   BUILD_ARGS='...'                       more arguments of the build command, e.g. --network=host
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf 'images: %s\n' "$*" >&2; exit 1; }

tag=${TAG:-$(sed -n 's/^appVersion: "\(.*\)"$/\1/p' helm/parley/Chart.yaml)}
prefix=${REGISTRY:+${REGISTRY%/}/}parley
all=(gateway tokenizer chat-llm tts vocoder asr-context)
gpu_services=(tokenizer chat-llm tts vocoder asr-context)
read -r -a more <<< "${BUILD_ARGS:-}"

works() {
  case $1 in
    buildah) command -v buildah >/dev/null ;;
    *) command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1 ;;
  esac
}
engine=${ENGINE:-}
if [ -z "$engine" ]; then
  for candidate in docker podman buildah; do
    if works "$candidate"; then engine=$candidate; break; fi
  done
fi
[ -n "$engine" ] || die "none of docker, podman and buildah works here (a docker client without its daemon does not)"
case $engine in docker | podman | buildah) ;; *) die "ENGINE must be docker, podman or buildah" ;; esac

built=()
build() {  # NAME DOCKERFILE CONTEXT ARGS...
  local name=$1 file=$2 context=$3; shift 3
  say "$name"
  "$engine" build --file "$file" --tag "$name" ${more[@]+"${more[@]}"} "$@" "$context"
  built+=("$name")
}
base() { build "$prefix-$1:$tag" images/Dockerfile . --target "$1" ${bases[@]+"${bases[@]}"}; }

bases=() builder=()
[ -z "${BASE:-}" ] || { bases+=(--build-arg "BASE=$BASE"); builder+=(--build-arg "BUILDER=$BASE"); }
[ -z "${VLLM:-}" ] || bases+=(--build-arg "VLLM=$VLLM")
[ -z "${TORCH_INDEX:-}" ] || bases+=(--build-arg "TORCH_INDEX=$TORCH_INDEX")

services=("$@")
tools=
[ $# -gt 0 ] || { services=("${all[@]}"); tools=1; }
for service in "${services[@]}"; do
  [ "$service" = tools ] || [ -f "services/$service/Dockerfile" ] || die "no service $service; there are ${all[*]} and tools"
done
[ -z "${WEIGHTS:-}" ] || [ -f "$WEIGHTS/parley.json" ] || die "$WEIGHTS holds no parley.json"

on() {  # the base of a service
  if [ "$1" = gateway ]; then echo base; else echo torch; fi
}
declare -A needed=()
for service in "${services[@]}"; do needed[$(on "$service")]=1; done
[ -z "$tools${WEIGHTS:-}" ] || needed[torch]=1
for each in base torch; do [ -z "${needed[$each]:-}" ] || base "$each"; done

for service in "${services[@]}"; do
  if [ "$service" = tools ]; then tools=1; continue; fi
  build "$prefix-$service:$tag" "services/$service/Dockerfile" . \
    --build-arg "BASE=$prefix-$(on "$service"):$tag" ${builder[@]+"${builder[@]}"}
done
if [ -n "$tools${WEIGHTS:-}" ]; then
  build "$prefix-tools:$tag" images/tools/Dockerfile . --build-arg "BASE=$prefix-torch:$tag" ${builder[@]+"${builder[@]}"}
fi
if [ -n "${WEIGHTS:-}" ]; then
  build "$prefix-weights:$tag" images/tools/weights.Dockerfile "$WEIGHTS" --build-arg "BASE=$prefix-tools:$tag"
fi
if [ -n "${GPU:-}" ]; then
  base gpu
  for service in "${gpu_services[@]}"; do
    build "$prefix-$service:$tag-gpu" "services/$service/Dockerfile" . \
      --build-arg "BASE=$prefix-gpu:$tag" ${builder[@]+"${builder[@]}"}
  done
fi
bill() {  # IMAGE: the bill of materials that it carries
  if [ "$engine" = buildah ]; then
    local container status=0
    container=$(buildah from --pull=never "$1")
    buildah run "$container" cat /opt/parley/sbom.cdx.json || status=$?
    buildah rm "$container" >/dev/null
    return $status
  fi
  "$engine" run --rm --network none --entrypoint cat "$1" /opt/parley/sbom.cdx.json
}
if [ -n "${SBOM:-}" ]; then
  mkdir -p "$SBOM"
  for name in "${built[@]}"; do
    case ${name##*/} in *-base:* | *-torch:* | *-gpu:* | *-weights:*) continue ;; esac
    bill "$name" > "$SBOM/$(basename "$name" | tr : -).cdx.json"
  done
fi
if [ -n "${PUSH:-}" ]; then
  for name in "${built[@]}"; do "$engine" push "$name"; done
fi
say "built with $engine: ${built[*]}"
