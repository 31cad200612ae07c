"""Evaluate a causal language model: perplexity, LAMBADA, HellaSwag, few-shot classification.

python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:text --checkpoint=runs/gpt --out=runs/gpt/text.json
python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:lambada --checkpoint=runs/gpt --out=runs/gpt/lambada.json
python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:sst2 --checkpoint=runs/gpt --out=runs/gpt/sst2.json \
    --config.eval.num_shots=8

A GPT trained with configs/pretrain/cpu_gpt.py (3,800 updates, one seed) reaches 1.46 bits per byte on
held-out novels, 0.1 % accuracy on LAMBADA and 29.1 % on HellaSwag, where chance is 25 %. The evaluations take
minutes on two cores. `:text` scores the documents that were held out of the checkpoint's pretraining, or
--config.eval.source=FILES. `:lambada` predicts the last word of a passage, and `:hellaswag` chooses an
ending. `:sst2` and `:nli` classify with a prompt and examples (Brown et al. 2020, section 2.4); for other
data, set --config.eval.template and --config.eval.source.
"""

from ml_collections import ConfigDict

from configs import check_argument, new_config

EVALUATIONS = {
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
    """`arg` is text, lambada, hellaswag, sst2 or nli."""
    check_argument(arg, tuple(EVALUATIONS))
    config = new_config()
    config.eval = EVALUATIONS[arg]
    return config
