# Sourced by tools/test and tools/demo: makes .venv in the repository root and installs simstore into it.
#
#   ROOT     the repository root
#   setup    afterwards VENV_PYTHON is a Python that has simstore and everything the tests and the demo need
#
# Nothing is installed when pyproject.toml, the kernel's sources and the place of the checkout are as they were last time.
# Until the checks have passed only bash's own commands are used: they must work on a machine that lacks everything.

ROOT="$(CDPATH="" cd -- "${BASH_SOURCE[0]%/*}/.." && pwd)"
VENV="$ROOT/.venv"
VENV_PYTHON="$VENV/bin/python"

export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}" # TensorFlow's greetings
export KERAS_BACKEND="${KERAS_BACKEND:-tensorflow}"

fail() {
    echo "simstore: $*" >&2
    exit 1
}

# Prints what a Python lacks: nothing, "old", "venv" or "headers".
PROBE='
import sys
if sys.version_info < (3, 11):
    print("old")
    sys.exit()
try:
    import ensurepip, venv
except ImportError:
    print("venv")
    sys.exit()
import os, sysconfig
if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    print("headers")
'

# Sets PYTHON to the first Python that can build simstore, or says what the first one new enough lacks.
find_python() {
    local candidate lacks short first="" first_lacks=""
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
        command -v -- "$candidate" >/dev/null || continue
        lacks="$("$candidate" -c "$PROBE" 2>/dev/null)" || continue # such as pyenv's stand-in for another version
        if [ -z "$lacks" ]; then
            PYTHON="$candidate"
            return
        fi
        if [ "$lacks" != old ] && [ -z "$first" ]; then
            first="$candidate" first_lacks="$lacks"
        fi
    done
    short="${first##*/}"
    case "$first_lacks" in
        venv) fail "$first cannot make virtual environments (no venv or ensurepip): install them," \
            "e.g. apt-get install $short-venv" ;;
        headers) fail "$first has no headers (Python.h): install them, e.g. apt-get install $short-dev" ;;
        *) fail "no Python >= 3.11 found: install one, e.g. apt-get install python3 python3-venv python3-dev" ;;
    esac
}

# hnswlib is C++, the kernel is C; Python's own choice is usually gcc, so clang alone has to be named.
find_compiler() {
    [ -n "${CXX:-}" ] && return
    if command -v c++ >/dev/null || command -v g++ >/dev/null; then
        return
    fi
    command -v clang++ >/dev/null || fail "no C++ compiler found: install one, e.g. apt-get install g++"
    export CC="${CC:-clang}" CXX=clang++
}

# One line that changes when the installation has to.
fingerprint() {
    "$VENV_PYTHON" - "$ROOT" <<'END'
import hashlib, pathlib, sys

root = pathlib.Path(sys.argv[1])
sources = ["pyproject.toml", "simstore/index/_kernel.pyx", "simstore/index/_distance.h"]
sources += ["simstore/index/_found.pxi", "simstore/index/_rows.pxi", "tools/_setup.sh"]
digest = hashlib.sha256((sys.version + sys.argv[1]).encode())
for name in sources:
    digest.update(hashlib.sha256((root / name).read_bytes()).digest())
print(digest.hexdigest())
END
}

is_installed() {
    local kernel wanted
    [ -x "$VENV_PYTHON" ] && [ -f "$VENV/simstore.stamp" ] || return 1
    for kernel in "$ROOT"/simstore/index/_kernel.*.so; do
        [ -f "$kernel" ] || return 1
    done
    wanted="$(fingerprint 2>/dev/null)" || return 1
    [ "$(<"$VENV/simstore.stamp")" = "$wanted" ]
}

# A virtual environment remembers its place: one that was moved, or not finished, is made anew.
is_usable() {
    [ -f "$VENV/simstore.root" ] && [ "$(<"$VENV/simstore.root")" = "$ROOT" ] && "$VENV_PYTHON" -m pip --version >/dev/null 2>&1
}

# Runs a command that is only heard when it fails.
quietly() {
    local said
    said="$("$@" 2>&1 </dev/null)" && return
    echo "$said" >&2
    fail "the installation failed: $*"
}

setup() {
    is_installed && return
    find_python
    find_compiler
    echo "== install into .venv (a few minutes the first time)"
    if ! is_usable; then
        quietly "$PYTHON" -m venv --clear "$VENV"
        echo "$ROOT" >"$VENV/simstore.root"
    fi
    rm -f "$VENV/simstore.stamp" "$ROOT/simstore/index/_kernel.c" # a build goes by times, the stamp by contents
    quietly "$VENV_PYTHON" -m pip install --disable-pip-version-check --no-input -e "${ROOT}[all,dev]"
    fingerprint >"$VENV/simstore.stamp"
}
