# shellcheck shell=bash
# Shared by the scripts in tools/: source it, it changes to the repository root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
export root
mkdir -p .cache build/reports
export UV_PYTHON_INSTALL_DIR=$root/.cache/python

say() { printf '==> %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# apt_install PACKAGE... : say what is installed, then install it; explain what to type where that is impossible.
apt_install() {
  command -v apt-get >/dev/null ||
    die "$* is missing and this is not a Debian system. Install it with your package manager, then type the same command again."
  [ "$(id -u)" = 0 ] || die "$* is missing and only root can install it. Type: sudo apt-get install $*"
  say "installing Debian packages: $*"
  (
    flock 8
    apt-get update -qq || say "apt-get update failed; trying with the package lists that are here"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >/dev/null
  ) 8>.cache/apt.lock || die "apt-get could not install $*. Type: apt-get install $*"
}

# need BINARY PACKAGE : install PACKAGE when BINARY is missing.
need() { command -v "$1" >/dev/null || apt_install "$2"; }

# find_python VERSION... : print the first interpreter that really runs ("3" stands for python3).
find_python() {
  local version candidate
  for version in "$@"; do
    for candidate in "$(type -P "python$version" || true)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version"*/bin/python; do
      if [ -x "$candidate" ] && "$candidate" -c 'import sys' >/dev/null 2>&1; then
        printf '%s\n' "$candidate"
        return 0
      fi
    done
  done
  return 1
}

# fill_venv DIRECTORY REQUIREMENTS : install with uv unless this was done for exactly these versions.
fill_venv() {
  local stamp
  stamp=$(cat "$2" requirements-test.txt | sha256sum | cut -d' ' -f1)-$root/$1
  if [ "$(cat "$1/.stamp" 2>/dev/null || true)" != "$stamp" ]; then
    say "installing Python packages of $2 into $1"
    .venv/bin/uv pip install --quiet --compile-bytecode --python "$1/bin/python" -r "$2" ||
      die "the packages of $2 could not be installed into $1. Is a Python package index reachable? See the message above."
    printf '%s\n' "$stamp" >"$1/.stamp"
  fi
}
