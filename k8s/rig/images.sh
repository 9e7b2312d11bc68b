#!/usr/bin/env bash
# Builds Parley's images for the rig: no registry, no docker, and no network inside the build. Run as root.
#   k8s/rig/images.sh OUT           writes OUT, an OCI layout with the six services, the tools and Redis: `rig load OUT`
#   WEIGHTS=FOLDER                  also parley-weights with that folder (it must hold a parley.json)
#   TORCH_INDEX=URL                 where CPU torch comes from; default: wherever pip is configured to look
#   RIG_CACHE                       bases, wheels and build storage are kept there; a second build takes what changed
# One Dockerfile serves this and machines with a registry: here BASE is made by mmdebstrap, and pip finds every wheel in a folder.
# Layers stay uncompressed and shared: six images hold one torch, on disk and in the nodes. skopeo copies, since `buildah push`
# compresses every layer of every image anew on its way into an OCI layout: torch six times, minutes.
set -Eeuo pipefail
cd "$(dirname "$0")/../.."
[ $# = 1 ] || { sed -n '2,8s/^# //p' "$0" >&2; exit 2; }
die() { printf 'rig images: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "must run as root"
for tool in buildah skopeo mmdebstrap unshare; do command -v "$tool" >/dev/null || die "missing tool $tool: run 'k8s/rig/rig install'"; done

mkdir -p "$1"
out=$(realpath "$1")
cache=${RIG_CACHE:-${HOME:-/root}/.cache/rig}/images
mkdir -p "$cache/wheels"
tag=$(sed -n 's/^appVersion: "\(.*\)"$/\1/p' helm/parley/Chart.yaml)

# 1. File systems, from the machine's own Debian mirror.
bootstrap() {  # NAME PACKAGES
  [ ! -f "$cache/$1.tar" ] || return 0
  mmdebstrap --quiet --variant=minbase --include="$2" bookworm "$cache/$1.part.tar"
  mv "$cache/$1.part.tar" "$cache/$1.tar"
}
bootstrap python ca-certificates,python3,python3-venv & pids=($!)
bootstrap redis redis-server & pids+=($!)

# 2. Wheels for the images' Python (bookworm: 3.11), whatever Python this machine runs. The stamp tells whether they are current.
lists=(requirements/constraints.txt requirements/no-deps.txt images/base.txt images/torch.txt images/tools.txt)
state=$(cat "${lists[@]}" "$0" | sha256sum | cut -d' ' -f1)
download() {
  "${PYTHON:-.venv/bin/python}" -m pip download --quiet --disable-pip-version-check --dest "$cache/wheels" --only-binary=:all: \
    --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_24_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_5_x86_64 \
    --platform manylinux1_x86_64 --platform linux_x86_64 "$@"
}
if [ "$(cat "$cache/wheels.state" 2>/dev/null)" != "$state" ]; then
  download ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --constraint requirements/constraints.txt \
    --requirement images/base.txt --requirement images/torch.txt --requirement images/tools.txt hatchling \
    async-timeout    # redis wants it below Python 3.11.3; pip decides that by its own Python, not by --python-version
  grep '^silero-vad==' requirements/no-deps.txt | download --no-deps --requirement /dev/stdin
  echo "$state" > "$cache/wheels.state"
fi
for pid in "${pids[@]}"; do wait "$pid" || die "mmdebstrap failed"; done

# 3. Images. A private mount namespace keeps buildah's storage mounts off the machine; chroot isolation needs no runc, no cgroups.
cat > "$cache/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$cache/storage"
runroot = "$cache/storage-run"
CONF
printf '[global]\nno-index = true\nfind-links = /wheels\n' > "$cache/pip.conf"
export CONTAINERS_STORAGE_CONF=$cache/storage.conf BUILDAH_ISOLATION=chroot
export cache out tag
# shellcheck disable=SC2016  # the inner shell expands
unshare --mount --propagation private bash -Eeuo pipefail -c '
  import() {  # NAME TAR
    ! buildah inspect --type image "$1" >/dev/null 2>&1 || return 0
    context=$(mktemp -d "$cache/context.XXXXXX")
    ln "$cache/$2.tar" "$context/"
    printf "FROM scratch\nADD %s.tar /\n" "$2" | buildah build --quiet --tag "$1" --file - "$context" >/dev/null
    rm -r "$context"
  }
  import localhost/python:bookworm python
  import docker.io/library/parley-redis:bookworm redis
  ENGINE=buildah BASE=localhost/python:bookworm TORCH_INDEX= \
    BUILD_ARGS="--quiet --layers --volume $cache/wheels:/wheels:ro --volume $cache/pip.conf:/etc/pip.conf:ro" \
    scripts/images.sh
  names=(gateway tokenizer chat-llm tts vocoder asr-context tools)
  [ -z "${WEIGHTS:-}" ] || names+=(weights)
  images=(parley-redis:bookworm) sources=()
  for name in "${names[@]}"; do images+=("parley-$name:$tag"); done
  for image in "${images[@]}"; do
    from=localhost/$image
    buildah inspect --type image "$from" >/dev/null 2>&1 || from=docker.io/library/$image
    sources+=("$from")
  done
  state=$(for from in "${sources[@]}"; do echo "$from"; buildah inspect --type image --format "{{.FromImageID}}" "$from"; done)
  [ "$(cat "$out.state" 2>/dev/null)" != "$state" ] || exit 0
  rm -rf "$out.state" "${out:?}"/*
  for from in "${sources[@]}"; do
    skopeo --insecure-policy copy --quiet --dest-oci-accept-uncompressed-layers "containers-storage:$from" \
      "oci:$out:docker.io/library/${from##*/}"
  done
  echo "$state" > "$out.state"
'
echo "rig images: $(du -sh "$out" | cut -f1) in $out"
