"""Evaluate a masked language model on running text: the loss of its masked tokens."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import prepare, sources
from bert_jax.data.masking import MaskRates, mask_tokens
from bert_jax.data.rows import pack, unpack
from bert_jax.evals.token_scores import MaskedScorer, Scored


def score(config: Any, scorer: MaskedScorer, length: int) -> Scored:
    """Score masked tokens of whole documents.

    A document is cut into rows of `length` tokens; the last row may be shorter. The masks of a row depend on
    `config.seed` and on its number, so that models with the same tokenizer predict the same tokens.
    """
    tokenizer = scorer.trained.tokenizer
    texts = read_documents(config, scorer.trained.experiment.data)
    size = length - len(tokenizer.prefix) - 1
    if size < 1:
        raise UserError(
            f'eval.length={length} leaves nothing to predict. Set it to {length - size + 1} or more.'
        )
    parts = [ids[i : i + size] for ids in tokenizer.encode(texts) for i in range(0, len(ids), size)]
    rates, num_predictions = MaskRates(config.mask_rate), int(np.ceil(config.mask_rate * length))
    tokens = np.zeros((len(parts), length), np.int32)
    lengths = np.zeros(len(parts), np.int32)
    positions, labels = np.zeros((2, len(parts), num_predictions), np.int32)
    is_scored = np.zeros((len(parts), num_predictions), bool)
    for i, part in enumerate(parts):
        row = unpack(pack(part, None, 0, length, tokenizer))
        rng = np.random.default_rng((config.seed, i))
        tokens[i], masked = mask_tokens(row, rates, num_predictions, tokenizer, rng)
        lengths[i] = row.length
        positions[i, : len(masked)], labels[i, : len(masked)] = masked, row.tokens[masked]
        is_scored[i, : len(masked)] = True
    scores = scorer(tokens, lengths, positions, labels)
    return Scored(
        rows=len(texts),
        tokens=int(is_scored.sum()),
        bytes=sum(len(text.encode()) for text in texts),
        scores={
            'masked_loss': float(scores.losses[is_scored].mean()),
            'masked_accuracy': float(scores.is_greedy[is_scored].mean()),
        },
    )


def read_documents(config: Any, pretraining_data: Any) -> list[str]:
    """Read the documents of an evaluation of running text, one paragraph per line.

    Args:
      config: settings of the evaluation; without `source`, the documents held out from pretraining are read.
      pretraining_data: `data` section of the checkpoint.

    Raises:
      UserError: if there are none.
    """
    if not config.source:
        documents: Iterable[Sequence[str]] = prepare.read_documents(pretraining_data, 'validation')
    else:
        documents = (d.paragraphs for d in sources.read_documents(config.source, config.split, config.text))
    texts = ['\n'.join(paragraphs) for paragraphs in documents]
    if not texts:
        raise UserError(
            f'eval.source={config.source!r} has no text to evaluate. Set it to text files or a TFDS name.'
        )
    return texts[: config.limit or len(texts)]
