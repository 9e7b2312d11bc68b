#!/usr/bin/env bash
# Makes .venv with everything Parley needs, pinned by requirements/constraints.txt. Does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

stamp=.venv/.parley-setup
# What decides whether the environment is current: the pins, every pyproject, and this script.
state=$( { cat requirements/*.txt scripts/setup.sh; cat libs/*/pyproject.toml services/*/pyproject.toml \
  clients/python/pyproject.toml evals/pyproject.toml; pwd; } | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then exit 0; fi

python=${PYTHON_BOOTSTRAP:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { python=$candidate; break; }
  done
fi
apt_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  say "Installing $* with apt-get"
  apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}
if [ -z "$python" ]; then
  apt_install python3 python3-venv || die "Python 3.11 or newer is needed; install it (Debian: apt-get install python3 python3-venv) and run make again"
  python=python3
fi
if [ ! -x .venv/bin/python ]; then
  say "Making .venv"
  if ! "$python" -m venv .venv >/dev/null 2>&1; then
    rm -rf .venv
    apt_install python3-venv || die "this Python cannot make virtual environments; install its venv package (Debian: apt-get install python3-venv) and run make again"
    "$python" -m venv .venv
  fi
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
pip=(.venv/bin/python -m pip install --quiet --constraint requirements/constraints.txt)
say "Installing packages (one to three minutes)"
"${pip[@]}" hatchling editables
editable=()
for package in libs/* services/* clients/python evals; do
  [ -f "$package/pyproject.toml" ] || continue
  # What `parley up` needs stands in the client's extra `local`.
  [ "$package" = clients/python ] && package+='[local]'
  editable+=(--editable "$package")
done
"${pip[@]}" --no-build-isolation --requirement requirements/dev.txt "${editable[@]}"
"${pip[@]}" --no-deps --requirement requirements/no-deps.txt
printf '%s\n' "$state" > "$stamp"
