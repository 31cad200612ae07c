"""Evaluate a masked language model on running text: the loss of its masked tokens, or a bound of the likelihood."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import prepare, sources
from bert_jax.data.masking import MaskRates, diffuse_tokens, mask_tokens
from bert_jax.data.rows import Row, pack, unpack
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.evals.token_scores import MaskedScorer, Scored, TokenScores


def score(config: Any, scorer: MaskedScorer, length: int) -> Scored:
    """Score masked tokens of whole documents, see `_cut`.

    The masks of a row depend on `config.seed` and on its number, so that models with the same tokenizer predict the same
    tokens.
    """
    tokenizer, rates = scorer.trained.tokenizer, MaskRates(config.mask_rate)
    num_predictions = int(np.ceil(config.mask_rate * length))

    def mask(row: Row, i: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((config.seed, i))
        return mask_tokens(row, rates, num_predictions, tokenizer, rng)

    texts = read_documents(config, scorer.trained.experiment.data)
    scores, is_scored = _score_rows(_cut(texts, length, tokenizer), mask, num_predictions, scorer)
    return Scored(
        rows=len(texts),
        tokens=int(is_scored.sum()),
        bytes=sum(len(text.encode()) for text in texts),
        scores={
            'masked_loss': float(scores.losses[is_scored].mean()),
            'masked_accuracy': float(scores.is_greedy[is_scored].mean()),
        },
    )


def score_bound(config: Any, scorer: MaskedScorer, length: int) -> Scored:
    """Estimate a bound of the negative log-likelihood of whole documents, the loss of masked diffusion; see `_cut`.

    It is the expected loss of the masked tokens of a row, divided by the rate at which its tokens are masked, for a rate
    uniform in (0, 1] (Sahoo et al. 2024, arXiv 2406.07524, equation 11). Each row is masked once. The rates of all rows are
    spread evenly, which lowers the variance.
    """
    tokenizer = scorer.trained.tokenizer
    texts = read_documents(config, scorer.trained.experiment.data)
    rows = _cut(texts, length, tokenizer)
    rng = np.random.default_rng(config.seed)
    rates = rng.permutation(np.arange(1, len(rows) + 1) - rng.random(len(rows))) / len(rows)

    def mask(row: Row, i: int) -> tuple[np.ndarray, np.ndarray]:
        return diffuse_tokens(row, rates[i], tokenizer, np.random.default_rng((config.seed, i)))

    scores, is_scored = _score_rows(rows, mask, length, scorer)
    nats = float(((scores.losses * is_scored).sum(1) / rates).sum())
    num_tokens = sum(row.length - len(tokenizer.prefix) - 1 for row in rows)
    num_bytes = sum(len(text.encode()) for text in texts)
    return Scored(
        rows=len(texts),
        tokens=num_tokens,
        bytes=num_bytes,
        scores={'diffusion_loss': nats / num_tokens, 'bits_per_byte': nats / np.log(2) / num_bytes},
    )


def _cut(texts: Sequence[str], length: int, tokenizer: Tokenizer) -> list[Row]:
    """Cut each document into rows of at most `length` tokens, [CLS] and [SEP] included."""
    size = length - len(tokenizer.prefix) - 1
    if size < 1:
        raise UserError(
            f'eval.length={length} leaves nothing to predict. Set it to {length - size + 1} or more.'
        )
    parts = (ids[i : i + size] for ids in tokenizer.encode(texts) for i in range(0, len(ids), size))
    return [unpack(pack(part, None, 0, length, tokenizer)) for part in parts]


def _score_rows(
    rows: Sequence[Row],
    mask: Callable[[Row, int], tuple[np.ndarray, np.ndarray]],
    num_predictions: int,
    scorer: MaskedScorer,
) -> tuple[TokenScores, np.ndarray]:
    """Score the masked tokens of rows.

    Args:
      rows: N rows of T tokens.
      mask: returns the masked tokens [T] of a row and the masked positions, at most P, given the row and its number.
      num_predictions: P.
      scorer: scores the tokens.

    Returns:
      Scores [N, P], and whether they are those of a masked token [N, P].
    """
    tokens = np.zeros((len(rows), len(rows[0].tokens)), np.int32)
    positions, labels = np.zeros((2, len(rows), num_predictions), np.int32)
    is_scored = np.zeros((len(rows), num_predictions), bool)
    for i, row in enumerate(rows):
        tokens[i], masked = mask(row, i)
        positions[i, : len(masked)], labels[i, : len(masked)] = masked, row.tokens[masked]
        is_scored[i, : len(masked)] = True
    lengths = np.array([row.length for row in rows], np.int32)
    return scorer(tokens, lengths, positions, labels), is_scored


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
