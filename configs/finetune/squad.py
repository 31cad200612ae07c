"""Extractive question answering: SQuAD 1.1 and 2.0, XQuAD, MLQA, DRCD.

python -m bert_jax.bin.train --config=configs/finetune/squad.py:v1.1 --workdir=runs/squad \
    --config.init.checkpoint=runs/english
python -m bert_jax.bin.eval_qa --config=configs/finetune/squad.py:v1.1 --checkpoint=runs/squad \
    --out=runs/squad/scores.json
python -m bert_jax.bin.eval_qa --config=configs/finetune/squad.py:xquad/zh --checkpoint=runs/squad \
    --out=runs/squad/zh.json
python -m bert_jax.bin.predict --checkpoint=runs/squad --question="Who wrote it?" --context=FILE.txt

From a checkpoint of configs/pretrain/cpu.py:192, two epochs on 3,000 questions with a learning rate of 3e-4 reach an
F1 of only 11.4 ± 0.3 (three seeds), in minutes on two cores; the published BERT base reaches 88.5. The argument is
v1.1, v2.0, xquad/LANGUAGE, mlqa/LANGUAGE or drcd. For MLQA and DRCD, download the authors' files and set
--config.data.source, such as FOLDER/DRCD_{split}.json. Other files in the SQuAD format are read in the same way; to
score a single file, leave out {split}. (Rajpurkar et al. 2016, 2018; Artetxe et al. 2020; Lewis et al. 2020; Shao et
al. 2018.)
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

XQUAD = ('ar', 'de', 'el', 'en', 'es', 'hi', 'ru', 'th', 'tr', 'vi', 'zh')
MLQA = ('ar', 'de', 'en', 'es', 'hi', 'vi', 'zh')


def get_config(arg: str = 'v1.1') -> ConfigDict:
    """`arg` is v1.1, v2.0, xquad/LANGUAGE, mlqa/LANGUAGE or drcd."""
    others = (*(f'xquad/{language}' for language in XQUAD), *(f'mlqa/{language}' for language in MLQA))
    check_argument(arg, ('v1.1', 'v2.0', 'drcd', *others))
    config = new_config()
    config.task = dict(name='qa', no_answer=arg == 'v2.0')
    config.model = dict(name='bert')
    config.data = dict(source=arg if arg.startswith('xquad') else f'squad/{arg}', length=384, stride=128)
    if arg.startswith('xquad'):
        config.data.eval_split = 'test'
    if arg.startswith('mlqa'):
        language = arg.partition('/')[2]
        source = 'MLQA_V1/{split}/{split}-context-LANGUAGE-question-LANGUAGE.json'
        config.data.update(source=source.replace('LANGUAGE', language), train_split='dev', eval_split='test')
        config.task.language = language
    if arg == 'drcd':
        config.data.update(source='DRCD_{split}.json', train_split='training', eval_split='dev')
        config.task.language = 'zh'
    config.optim = dict(learning_rate=5e-5, warmup=0.1)
    config.train = dict(steps='2 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='best_f1' if arg == 'v2.0' else 'f1')
    return config
