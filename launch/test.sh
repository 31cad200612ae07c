#!/usr/bin/env bash
# Run the linter, the formatter, the type checker and the tests in the pinned environment.
# Usage: bash launch/test.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/env.sh
ruff check
ruff format --check
mypy
python -m pytest -n auto --maxprocesses=4 --dist=loadscope --no-loadscope-reorder "$@"
