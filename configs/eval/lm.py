"""Evaluate a language model: perplexity, LAMBADA, HellaSwag, few-shot classification, masked tokens, BLiMP.

python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:text --checkpoint=runs/gpt --out=runs/gpt/text.json
python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:lambada --checkpoint=runs/gpt --out=runs/gpt/lambada.json
python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:sst2 --checkpoint=runs/gpt --out=runs/gpt/sst2.json \
    --config.eval.num_shots=8

A GPT trained with configs/pretrain/cpu_gpt.py (3,800 updates, one seed) reaches 1.46 bits per byte on
held-out novels, 0.1 % accuracy on LAMBADA and 29.1 % on HellaSwag, where chance is 25 %. The evaluations take
minutes on two cores. `:text` scores the documents that were held out of the checkpoint's pretraining, or
--config.eval.source=FILES. `:lambada` predicts the last word of a passage, and `:hellaswag` chooses an
ending. `:sst2` and `:nli` classify with a prompt and examples (Brown et al. 2020, section 2.4); for other
data, set --config.eval.template and --config.eval.source. These need a causal language model.

python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:masked --checkpoint=runs/english --out=runs/english/masked.json
python -m bert_jax.bin.eval_lm --config=configs/eval/lm.py:blimp --checkpoint=runs/english --out=runs/english/blimp.json

`:masked` is the loss of a masked language model on 15 % of the held-out tokens. `:diffusion` is an upper bound of its bits per
byte, which is close for a model that was trained with task.diffusion. `:blimp` is the accuracy on 67,000 minimal
pairs of grammar (Warstadt et al. 2020), for masked and causal language models; chance is 50 %.
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
    'masked': dict(kind='masked_loss', batch_size=32),
    'diffusion': dict(kind='diffusion_bound', batch_size=32),
    'blimp': dict(
        kind='minimal_pairs', source='blimp', split='train', group='linguistics_term', batch_size=256
    ),
}


def get_config(arg: str = 'text') -> ConfigDict:
    """`arg` is text, lambada, hellaswag, sst2, nli, masked, diffusion or blimp."""
    check_argument(arg, tuple(EVALUATIONS))
    config = new_config()
    config.eval = EVALUATIONS[arg]
    return config
