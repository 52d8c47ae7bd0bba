# Sourced by the scripts beside it: where things are, and how they speak.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${PINNACE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pinnace}
target=${CARGO_TARGET_DIR:-$root/target}
venv=$root/.cache/venv
export PATH="$cache/bin:$venv/bin:$PATH"
# The tests use the same tools.
export PINNACE_CACHE=$cache

# Progress goes to stderr, so that stdout stays for results.
say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
