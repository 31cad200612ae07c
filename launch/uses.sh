#!/usr/bin/env bash
# The uses of BERT on real data, for a small encoder: nine tasks, from pretrained and from random weights, three seeds;
# one table and one picture. A second call goes on from where it was.
# Usage: bash launch/uses.sh CHECKPOINT [DIR [JOBS]]    (default: runs/uses and 1; data is found through TFDS_DATA_DIR)
# JOBS is how many runs at a time: of a small model on CPU cores as many as there are cores.
set -euo pipefail
checkpoint=$(realpath "${1:?usage: bash launch/uses.sh CHECKPOINT [DIR [JOBS]]}")
out=$(realpath -m "${2:-$(dirname "$0")/../runs/uses}")
cd "$(dirname "$0")/.."
source launch/env.sh
jobs=${3:-1}
seeds=3

# Every update is logged, for curves; scores are taken at the end alone.
tune() {
    local name=$1 config=$2
    shift 2
    python -m bert_jax.bin.repeat --config="configs/finetune/$config" --workdir="$out/${name}_$weights" --seeds=$seeds --jobs="$jobs" \
        --config.init.checkpoint="$checkpoint" --config.init.weights="$weights" \
        --config.optim.learning_rate=3e-4 --config.train.log_every=1 \
        --config.train.eval_every=0 --config.checkpoint.every=1.0 "$@"
}

for weights in random pretrained; do
    tune cola glue.py:cola
    tune mrpc glue.py:mrpc
    tune rte glue.py:rte
    tune stsb glue.py:stsb
    tune pos pos.py:en_ewt
    tune ner ner.py:en --config.train.steps='1 epochs'
    tune sst2 glue.py:sst2 --config.train.steps='1 epochs'
    tune nli xnli.py --config.train.steps='1 epochs'
    for ((seed = 0; seed < seeds; seed++)); do
        run="$out/nli_$weights/runs/seed$seed"
        [ -e "$run/xnli_en.json" ] || python -m bert_jax.bin.eval_classify --config=configs/finetune/xnli.py:en \
            --checkpoint="$run" --out="$run/xnli_en.json"
    done
    tune squad squad.py:v1.1 --config.data.limit=3000 --config.train.eval_rows=4000
    for ((seed = 0; seed < seeds; seed++)); do
        run="$out/squad_$weights/runs/seed$seed"
        [ -e "$run/validation.json" ] || python -m bert_jax.bin.eval_qa --config=configs/finetune/squad.py:v1.1 \
            --checkpoint="$run" --out="$run/validation.json"
    done
done

python -m bert_jax.bin.report "$checkpoint" "$out"/*_random "$out"/*_pretrained \
    --out="$out/report.html" --plots="$out/plots"
