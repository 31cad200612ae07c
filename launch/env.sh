# Source this file to create .venv with the pinned requirements (once) and to activate it.
# PYTHON sets the interpreter; by default the first of Python 3.11 to 3.14 on the PATH.

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 to 3.14 was not found. Install one of them, or set PYTHON=/path/to/python." >&2
    return 1
}

make_environment() {
    local python stamp
    stamp=.venv/requirements.stamp
    if ! cmp -s requirements.txt "$stamp" 2>/dev/null; then
        python=$(find_python) || return 1
        echo "installing the requirements into .venv" >&2
        rm -f "$stamp"
        "$python" -m venv --clear .venv || {
            echo "error: $python cannot create a virtual environment. Install its venv module (Debian: apt install python3-venv)." >&2
            return 1
        }
        # uv installs in seconds what takes pip a minute; pip is the fallback.
        .venv/bin/python -m pip install -q --disable-pip-version-check uv &&
            .venv/bin/uv pip install -q --python .venv/bin/python -r requirements.txt ||
            .venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt || {
            echo "error: Installing the requirements failed. See the output of pip above." >&2
            return 1
        }
        cp requirements.txt "$stamp"
    fi
    # shellcheck disable=SC1091
    source .venv/bin/activate
}

# Without bytecode on disk, every process would compile the libraries again, which takes seconds.
unset PYTHONDONTWRITEBYTECODE
make_environment
