#!/bin/sh
# Usage: system_packages.sh PYTHON [clang++ | chromium]
# Installs, with apt and where it may, what a virtual environment and csrc/ need and this machine lacks. Where it may
# not, it says what to install: an error if Python itself cannot go on, a hint if only the C++ extension cannot be built.
# With clang++, that too, and what its fuzzer and sanitizers are linked with; fuzz.py says what to do without.
# With chromium, the browser in which pages are tested; those tests are skipped without one.
set -eu

python=$1
folder=$(dirname "$0")

if ! command -v "$python" >/dev/null 2>&1; then
    echo "fastdino needs Python 3.10 or newer, and '$python' is not found: apt-get install python3, or name one: make PYTHON=/path/to/python3" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "fastdino needs Python 3.10 or newer, and '$python' is $("$python" -V 2>&1): name a newer one: make PYTHON=python3.12" >&2
    exit 1
fi

apt() {
    if [ "$(id -u)" -eq 0 ]; then
        env DEBIAN_FRONTEND=noninteractive apt-get "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive apt-get "$@"
    fi
}

may_install() {
    command -v apt-get >/dev/null 2>&1 && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
}

# A fresh machine or container has no package lists yet, hence the update, and only after a first failure.
install() {
    echo "installing with apt-get: $*"
    apt install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return
    apt update -qq >/dev/null || return
    apt install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    venv=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if ! may_install || ! install "$venv"; then
        echo "Python cannot make virtual environments here: run 'apt-get install $venv' as root, then this again" >&2
        exit 1
    fi
fi

missing=$("$python" "$folder/native_toolchain.py")
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # one argument a package
    if ! may_install || ! install $missing; then
        echo "going on; for the C++ extension run 'apt-get install $missing' as root, then 'make clean' and this again" >&2
    fi
fi

if [ "${2:-}" = clang++ ] && ! command -v clang++ >/dev/null 2>&1 && may_install; then
    install clang libclang-rt-dev || install clang || true
fi

if [ "${2:-}" = chromium ] && ! command -v chromium >/dev/null 2>&1 && may_install; then
    install chromium || true
fi
