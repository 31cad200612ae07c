"""Evaluate a language model on minimal pairs: which of two sentences is more likely, as in BLiMP (Warstadt et al. 2020)."""

import collections
from typing import Any

import numpy as np

from bert_jax.data import records as records_lib
from bert_jax.data import tfds_data
from bert_jax.evals.token_scores import CausalScorer, MaskedScorer, Scored


def score(config: Any, scorer: CausalScorer | MaskedScorer, length: int) -> Scored:
    """Score minimal pairs by log-likelihood or, with a masked language model, by pseudo-log-likelihood.

    A pair is correct if its better sentence has the higher sum over all tokens. Ties are wrong, and so are pairs that the
    tokenizer does not distinguish.

    Args:
      config: settings of the evaluation.
      scorer: scores the tokens.
      length: unused; sentences are never cut.
    """
    names = tfds_data.list_configs(config.source)
    records = [r for name in names for r in records_lib.read(name, config.split, config.limit)]
    tokenizer, model = scorer.trained.tokenizer, scorer.trained.experiment.model
    texts = [
        r.text(field, f'eval.{key}')
        for r in records
        for key, field in (('good', config.good), ('bad', config.bad))
    ]
    encoded = tokenizer.encode(texts)
    for i, ids in enumerate(encoded):
        if not len(ids):
            raise records[i // 2].error('has an empty sentence')
        num_special = 1 if scorer.trained.is_causal else len(tokenizer.prefix) + 1
        if len(ids) + num_special > model.longest_row:
            raise records[i // 2].error(
                f'has a sentence of more than {model.longest_row} tokens, which the model cannot read'
            )
    sums = scorer.log_likelihoods(encoded)
    is_different = [not np.array_equal(*pair) for pair in zip(encoded[::2], encoded[1::2], strict=True)]
    is_correct = (sums[::2] > sums[1::2]) & is_different
    groups = collections.defaultdict(list)
    for record, correct in zip(records, is_correct, strict=True):
        if config.group:
            groups[record.text(config.group, 'eval.group')].append(correct)
    return Scored(
        rows=len(records),
        tokens=sum(map(len, encoded)),
        bytes=sum(len(text.encode()) for text in texts),
        scores={
            'accuracy': float(is_correct.mean()),
            **{f'accuracy/{name}': float(np.mean(values)) for name, values in sorted(groups.items())},
        },
    )
