#!/usr/bin/env bash
# Pretrain and fine-tune a small BERT on the CPU, with text and labels from the installed Python packages: set up the
# environment, prepare data, train a tokenizer, pretrain, fine-tune from pretrained and from random weights, write a
# report. A second call resumes an interrupted one and reuses what is finished.
# Usage: bash launch/quickstart.sh [DIR]    (default: runs/quickstart)
# Examples:
#   bash launch/quickstart.sh
#   bash launch/quickstart.sh /tmp/quickstart
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^set/s/^# //p' "$0" && exit ;; esac
out=$(realpath -m "${1:-$(dirname "$0")/../runs/quickstart}")
cd "$(dirname "$0")/.."
source launch/env.sh
start=$SECONDS

say() { printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)); }

say "pretraining: masked LM on Python's documentation"
python -m bert_jax.bin.train --config=configs/quickstart.py:pretrain --workdir="$out/pretrain"

say "fine-tuning from pretrained and from random weights, two seeds each: what does this sentence describe?"
python -m bert_jax.bin.sweep --config=configs/quickstart.py:finetune --workdir="$out/finetune" --seeds=2 --jobs=2 \
    --over=init.weights=pretrained,random --config.init.checkpoint="$out/pretrain" --score=accuracy

say "report"
python -m bert_jax.bin.report "$out/pretrain" "$out"/finetune/weights=* --out="$out/report.html" \
    --plots="$out/plots" \
    --fill "Return the [MASK] of the array." \
    --fill "Return [MASK] if the object is a string." \
    --fill "The default [MASK] is None."
say "done; open $out/report.html"
