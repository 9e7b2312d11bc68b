#!/usr/bin/env bash
# The end-to-end suite on a real Kubernetes of two nodes that this script makes of a plain Debian 12 machine, and takes away
# again without a trace. Needs root, 8 GB of memory and 15 GB of disk. The first run builds the control plane.
#   scripts/e2e-rig.sh [TESTS...] [PYTEST ARGUMENTS...]   e.g. e2e-tests/cluster, -k upgrades, --table docs/reliability.md; default: e2e-tests
#   WEIGHTS=FOLDER                             weights to install; e.g. weights/pocket; default: seeded ones
#   KEEP=1                                     leave the cluster running; `k8s/rig/rig down` removes it
#   RIG_CACHE=FOLDER                           where control plane, wheels and image layers stay between runs (~/.cache/rig)
set -Eeuo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "e2e-rig: $*" >&2; }
die() { printf 'e2e-rig: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "a cluster needs root"
rig=k8s/rig/rig
home=${RIG_HOME:-/var/lib/rig}
name=${RIG_NAME:-rig}
weights=${WEIGHTS-}
sysctls=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

began=$SECONDS
step() { say "$1 after $((SECONDS - began)) s"; }

# What the machine looks like, as far as a cluster changes it.
machine() {
  sysctl "${sysctls[@]}"
  awk '{print "mount", $2}' /proc/mounts | sort
  ip -o link | awk '{print "link", $2}' | sed 's/@.*//' | sort
  ip -4 route | sed 's/^/route /' | sort
  find /sys/fs/cgroup -maxdepth 3 -type d -name "$name-node*" | sed 's/^/cgroup /' | sort
  losetup --list --noheadings --output NAME,BACK-FILE | sed 's/^/loop /' | sort
}
namespaces_of_nodes() {  # that no process outside shares
  local node pid
  for node in 1 2; do
    pid=$(cut -d' ' -f1 "$home/node$node/init" 2>/dev/null) || continue
    nsenter -t "$pid" -m -p -- sh -c 'readlink /proc/[0-9]*/ns/net /proc/[0-9]*/ns/mnt /proc/[0-9]*/ns/pid' 2>/dev/null || true
  done | sort -u | comm -23 - <(readlink /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/pid | sort -u)
}
namespaces() { { readlink /proc/[0-9]*/ns/net /proc/[0-9]*/ns/mnt /proc/[0-9]*/ns/pid 2>/dev/null || true; } | sort -u; }

down() {
  namespaces_of_nodes > "$tmp/namespaces"
  "$rig" down
  machine > "$tmp/after"
  diff "$tmp/before" "$tmp/after" >&2 || die "the machine is not as it was before"
  namespaces | comm -12 - "$tmp/namespaces" > "$tmp/left"
  [ ! -s "$tmp/left" ] || die "namespaces of the cluster are left: $(tr '\n' ' ' < "$tmp/left")"
  step "down, without a trace"
}

"$rig" install
"$rig" build
step "control plane"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
if [ -z "${KEEP:-}" ]; then
  "$rig" down
  machine > "$tmp/before"
fi
eval "$("$rig" env)"
export PATH
unset KUBECONFIG
tests=(e2e-tests)
for argument in "$@"; do case $argument in e2e-tests*) tests=() ;; esac; done
status=0
PARLEY_E2E_WEIGHTS=$weights .venv/bin/python -m pytest ${tests[@]+"${tests[@]}"} --rig --keep "$@" || status=$?
step "tests"
[ -n "${KEEP:-}" ] || down
exit "$status"
