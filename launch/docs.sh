#!/usr/bin/env bash
# Build the documentation into docs/_build/html. Warnings are errors.
# Usage: bash launch/docs.sh [serve [PORT]]    (serve: build, then serve on localhost; default port 8000)
# Examples:
#   bash launch/docs.sh
#   bash launch/docs.sh serve 8080
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/s/^# //p' "$0" && exit ;; esac
cd "$(dirname "$0")/.."
source launch/env.sh
export JAX_PLATFORMS=cpu # the reference imports the code, and needs no accelerator
python -m sphinx -b html -j auto -W --keep-going -q docs docs/_build/html
echo "built docs/_build/html/index.html"
if [ "${1:-}" = serve ]; then
    exec python -m http.server --bind localhost --directory docs/_build/html "${2:-8000}"
fi
