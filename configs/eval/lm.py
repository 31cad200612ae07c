"""What to ask of a model that predicts the next token.

python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:text --checkpoint=runs/gpt --out=runs/gpt/text.json
python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:lambada --checkpoint=runs/gpt --out=runs/gpt/lambada.json
python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:sst2 --checkpoint=runs/gpt --out=runs/gpt/sst2.json --config.eval.shots=8

`text` is the text that the checkpoint's pretraining held out, or --config.eval.source=FILES; `sst2` and `nli` are prompts
with examples (Brown et al. 2020, section 2.4), for data of your own --config.eval.template and --config.eval.source.
"""

from ml_collections import ConfigDict

ASKED = {
    'text': dict(kind='perplexity'),
    'lambada': dict(kind='last_word', source='lambada', split='test', text='passage'),
    'hellaswag': dict(kind='choice', source='hellaswag', template='{context} {answer}', endings=('endings',)),
    'sst2': dict(
        kind='choice',
        source='glue/sst2',
        template='Review: {sentence}\nSentiment: {answer}',
        answers=('negative', 'positive'),
    ),
    'nli': dict(
        kind='choice',
        source='xnli',
        split='test',
        train_split='validation',
        template='{premise.en}\nQuestion: {hypothesis.en} True, False or Neither?\nAnswer: {answer}',
        answers=('True', 'Neither', 'False'),
    ),
}


def get_config(arg: str = 'text') -> ConfigDict:
    """`arg` is one of ASKED."""
    return ConfigDict({'eval': ASKED[arg]})
