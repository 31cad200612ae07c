#!/usr/bin/env bash
# Look for faults with random cases: odd and damaged files, runs that die, and disks that fail.
# Usage: bash launch/campaign.sh [MINUTES [SEED]] [--part=input|kills|disks|loads] | --repeat=CASE
# Examples:
#   bash launch/campaign.sh 30 1
#   bash launch/campaign.sh --repeat=input-1-17
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/s/^# //p' "$0" && exit ;; esac
cd "$(dirname "$0")/.."
source launch/env.sh
PYTHONPATH=. exec python -m tests.campaign "$@"
