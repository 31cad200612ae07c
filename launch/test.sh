#!/usr/bin/env bash
# Run the linter, the formatter, the type checker and the tests in the pinned environment.
# Usage: bash launch/test.sh [arguments of pytest]
# Examples:
#   bash launch/test.sh
#   bash launch/test.sh tests/data -k rows
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/s/^# //p' "$0" && exit ;; esac
cd "$(dirname "$0")/.."
source launch/env.sh
ruff check
ruff format --check
mypy
python -m pytest -n auto --maxprocesses=4 --dist=loadscope --no-loadscope-reorder "$@"
