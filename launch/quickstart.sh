#!/usr/bin/env bash
# From nothing to a fine-tuned BERT on the CPU, with text and labels found on this machine:
# environment, data, tokenizer, pretraining, fine-tuning from pretrained and from random weights,
# scores, report. A second call continues what was interrupted and reuses what is there.
# Usage: bash launch/quickstart.sh [DIR]    (default: runs/quickstart)
set -euo pipefail
out=$(realpath -m "${1:-$(dirname "$0")/../runs/quickstart}")
cd "$(dirname "$0")/.."
source launch/env.sh
began=$SECONDS

say() { printf '\n== %s (%d:%02d)\n' "$1" $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)); }

say "pretraining: masked LM and next sentence on Python's own documentation"
python -m bert_jax.bin.train --config=configs/quickstart.py:pretrain --workdir="$out/pretrain"

for weights in pretrained random; do
    say "fine-tuning from $weights weights: does this summary describe this signature?"
    python -m bert_jax.bin.train --config=configs/quickstart.py:finetune --workdir="$out/from_$weights" \
        --config.init.checkpoint="$out/pretrain" --config.init.weights=$weights
    python -m bert_jax.bin.eval_classify --config=configs/quickstart.py:finetune \
        --checkpoint="$out/from_$weights" --out="$out/from_$weights/scores.json"
done

say "report"
python -m bert_jax.bin.report "$out/pretrain" "$out/from_pretrained" "$out/from_random" --out="$out/report.html" \
    --fill "Return the [MASK] of the array." \
    --fill "If the file does not [MASK], an exception is raised." \
    --fill "The default [MASK] is None."
say "done: open $out/report.html"
