#!/usr/bin/env bash
# Check and measure bert_jax on the accelerator of this machine, the most valuable parts first, within nine minutes.
# Needs Python with JAX for the accelerator, and no network; PyTorch and transformers are measured too where they are
# installed. A part that fails or takes too long does not stop the others.
# Usage: bash launch/gpu_bench.sh [DIR]    (default: $OUT, else runs/gpu_bench)
#   DIR/results.jsonl  one line per timing, written at once
#   DIR/log.txt        everything that was printed
#   DIR/parts.txt      status, seconds and name of each part
# Environment:
#   PYTHON    Python to use (default: .venv/bin/python if it exists, else python3)
#   WHEELS    folder of wheels of packages that this Python lacks, installed into a temporary folder first
#   DEADLINE  seconds for all parts together (default: 540)
#   PARTS     names of the parts to run, see below (default: all that fit)
#   DEVICE    gpu, tpu or cpu (default: gpu)
#   MODEL     settings of the model of bert_jax, such as "scan_layers=true remat=dots"
# Examples:
#   bash launch/gpu_bench.sh runs/h200
#   WHEELS=wheels PARTS="padded packed loop" bash launch/gpu_bench.sh runs/h200
#   DEVICE=cpu BASE=tiny LARGE=tiny LONG=32 SHORT=16 DURATION=0.1 bash launch/gpu_bench.sh /tmp/trial
set -uo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/s/^# //p' "$0" && exit ;; esac
out=$(realpath -m "${1:-${OUT:-$(dirname "$0")/../runs/gpu_bench}}")
wheels=${WHEELS:+$(realpath -m "$WHEELS")}
cd "$(dirname "$0")/.." || exit 1
[ -x .venv/bin/python ] && default=.venv/bin/python || default=python3
python=${PYTHON:-$default}
deadline=${DEADLINE:-540}
mkdir -p "$out" || exit 1
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
exec > >(tee -a "$out/log.txt") 2>&1

# part NAME LIMIT COMMAND...: run a command for at most LIMIT seconds, and not past the deadline.
part() {
    local name=$1 limit=$2 start=$SECONDS status=0
    shift 2
    if [ -n "${PARTS:-}" ] && [[ " $PARTS " != *" $name "* ]]; then return; fi
    if ((deadline - SECONDS < 40)); then
        echo "left-out 0 $name" >>"$out/parts.txt"
        return
    fi
    ((limit > deadline - SECONDS)) && limit=$((deadline - SECONDS))
    printf '\n== %s (at %d s, at most %d s)\n' "$name" "$SECONDS" "$limit"
    timeout -k 5 "$limit" "$@" || status=$?
    case $status in 0) status=ok ;; 124 | 137) status=too-long ;; *) status=failed-$status ;; esac
    echo "$status $((SECONDS - start)) $name" | tee -a "$out/parts.txt"
}

# bench NAME LIMIT ARGUMENTS...: a part that measures. It ends before its limit, to keep what it has measured.
bench() {
    local name=$1 limit=$2 setting
    shift 2
    ((limit > deadline - SECONDS)) && limit=$((deadline - SECONDS))
    for setting in ${MODEL:-}; do set -- "$@" --model="$setting"; done
    part "$name" "$limit" "$python" -m bert_jax.bin.bench "$@" --device="${DEVICE:-gpu}" --seconds="${DURATION:-4}" \
        --limit=$((limit - 25)) --out="$out/results.jsonl"
}

if [ -n "$wheels" ]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install -q --no-index --no-deps --no-compile --disable-pip-version-check --target "$site" \
        "$wheels"/*.whl && export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
base=${BASE:-base} large=${LARGE:-large} long=${LONG:-512} short=${SHORT:-128}
at_long=(--throughput --lengths="$long" --doublings=0) at_short=(--throughput --lengths="$short" --doublings=0)

part versions 60 "$python" -c '
import importlib.metadata as m
for name in ("jax", "jax-cuda13-plugin", "flax", "optax", "torch", "transformers"):
    try:
        print(name, m.version(name))
    except m.PackageNotFoundError:
        print(name, "is not installed")'
[ -d tests/gpu ] && part tests 150 "$python" -m pytest -q -p no:cacheprovider --noconftest --durations=5 tests/gpu
bench base 160 "$base" "${at_long[@]}" --rows=full --programs=bert_jax --doublings=1 --profile
bench large 130 "$large" "${at_long[@]}" --rows=full --programs=bert_jax
bench base-tuned 110 "$base" "${at_long[@]}" --rows=full --programs=tuned
bench large-tuned 110 "$large" "${at_long[@]}" --rows=full --programs=tuned
bench padded 90 "$base" "${at_long[@]}" --rows=padded --programs=bert_jax
bench packed 90 "$base" "${at_long[@]}" --rows=packed --programs=bert_jax
bench padded-tuned 100 "$base" "${at_long[@]}" --rows=padded --programs=tuned
bench packed-tuned 100 "$base" "${at_long[@]}" --rows=packed --programs=tuned
bench short 100 "$base" "${at_short[@]}" --rows=full --programs=bert_jax
bench short-tuned 100 "$base" "${at_short[@]}" --rows=full --programs=tuned
bench naive 80 "$base" "${at_long[@]}" --rows=full --programs=transformers
bench loop 150 "$base" --loop --lengths="$long"
bench dropout 100 "$base" "${at_long[@]}" --rows=full --programs=bert_jax --dropout=0.1
bench short-large 100 "$large" "${at_short[@]}" --rows=full --programs=bert_jax
bench short-large-tuned 100 "$large" "${at_short[@]}" --rows=full --programs=tuned
printf '\n== parts, after %d s\n' "$SECONDS"
cat "$out/parts.txt"
