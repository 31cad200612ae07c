"""GLUE tasks (Wang et al. 2018, arXiv 1804.07461), with BERT's settings (Devlin et al. 2019, section 4.1).

python -m bert_jax.bin.train --config=configs/finetune/glue.py:mrpc --workdir=runs/mrpc \
    --config.init.checkpoint=runs/english --config.optim.learning_rate=3e-4
python -m bert_jax.bin.eval_classify --config=configs/finetune/glue.py:mrpc --checkpoint=runs/mrpc \
    --out=runs/mrpc/scores.json
python -m bert_jax.bin.predict --checkpoint=runs/mrpc --input=glue/mrpc --output=MRPC.tsv --format=glue \
    --class_ids

From a checkpoint of configs/pretrain/cpu.py:192, with this learning rate (three seeds): cola 12.6 ± 2.4 (Matthews
correlation), mrpc 79.4 ± 0.5 (F1), stsb 22.3 ± 2.7 (Pearson correlation), rte 54.3 ± 2.0 (accuracy), each in minutes on
two cores. For the published BERT base, keep the default learning rate of 5e-5. The argument is cola, sst2, mrpc, stsb,
qqp, mnli, qnli, rte or wnli. To score stsb, use eval_regress; to score mnli on its second development set, set
--config.data.eval_split=validation_mismatched. For the GLUE server, omit --class_ids for mnli, qnli and rte.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

# Fields of the first and the second text.
TASKS = {
    'cola': ('sentence', ''),
    'sst2': ('sentence', ''),
    'mrpc': ('sentence1', 'sentence2'),
    'stsb': ('sentence1', 'sentence2'),
    'qqp': ('question1', 'question2'),
    'mnli': ('premise', 'hypothesis'),
    'qnli': ('question', 'sentence'),
    'rte': ('sentence1', 'sentence2'),
    'wnli': ('sentence1', 'sentence2'),
}
# Scores that select the best checkpoint, where it is not accuracy.
BEST_METRICS = {'cola': 'matthews', 'mrpc': 'f1', 'qqp': 'f1', 'stsb': 'correlation'}


def get_config(arg: str) -> ConfigDict:
    """`arg` is the task, a key of `TASKS`."""
    check_argument(arg, tuple(TASKS))
    text, text_pair = TASKS[arg]
    config = new_config()
    config.task = dict(name='regress' if arg == 'stsb' else 'classify')
    config.model = dict(name='bert')
    config.data = dict(source=f'glue/{arg}', text=text, text_pair=text_pair, length=128)
    if arg == 'mnli':
        config.data.eval_split = 'validation_matched'
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best_metric=BEST_METRICS.get(arg, 'accuracy'))
    return config
