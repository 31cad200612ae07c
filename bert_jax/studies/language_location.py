"""Where a multilingual model encodes the language: mean hidden state of each language, mean shifts, and a probe.

Adding the difference of the mean hidden states of two languages to a sentence of one of them makes the masked-LM head
predict words of the other (Liu et al. 2020, arXiv 2010.10041).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.studies.hidden_states import Batch, SentenceEncoder, no_known_words_error


def language_mean(encoder: SentenceEncoder, language: str) -> np.ndarray:
    """Mean hidden state of a language's ordinary tokens in every layer, [L+1, D]."""
    return mean_hidden_state(encoder.batches(language), encoder.hidden_states, repr(language))


def mean_hidden_state(
    batches: Iterable[tuple[Any, Batch]], encode: Callable[[Batch], np.ndarray], name: str
) -> np.ndarray:
    """Average the hidden states of the tokens that a batch marks as `ordinary`.

    Args:
      batches: pairs as from `SentenceEncoder.batches`; only the batch of each pair is used.
      encode: function from a batch to its hidden states, [L+1, B, T, D].
      name: name of the text in error messages.

    Returns:
      [L+1, D] float64.

    Raises:
      UserError: if no token is ordinary.
    """
    total, count = np.zeros(1), 0
    for _, batch in batches:
        total = total + encode(batch)[:, batch['ordinary']].sum(1, dtype=np.float64)
        count += int(batch['ordinary'].sum())
    if not count:
        raise no_known_words_error(f'The text of {name}')
    return total / count


class TokenFrequencies:
    """Relative frequency of each token in each language, to decide which language a token belongs to."""

    def __init__(self, encoder: SentenceEncoder):
        self._languages = encoder.languages
        size = 2 * len(encoder.tokenizer)
        self._frequencies = np.zeros((len(self._languages), size))
        for frequency, language in zip(self._frequencies, self._languages, strict=True):
            for _, batch in encoder.batches(language):
                np.add.at(frequency, batch['tokens'][batch['ordinary']], 1)
            frequency /= max(frequency.sum(), 1)

    def is_more_frequent(self, a: str, b: str) -> np.ndarray:
        """Booleans [2V]: whether each token is more frequent in language `a` than in `b`."""
        first, second = (self._frequencies[self._languages.index(name)] for name in (a, b))
        return first > second


class Shift(NamedTuple):
    """Predictions after shifting the hidden states of the language `source` toward `target`.

    Attributes:
      source: language of the sentences.
      target: language of the shift.
      layer: layer that was shifted, 0 (embeddings) to L.
      alpha: factor of the difference of the two means that was added.
      conversion_rate: share of the predicted tokens that are more frequent in the target language than in the source.
      translation_accuracy: share of the predicted tokens that are the translation of the token at their position, among
        the tokens whose translation is known; None if none is known.
    """

    source: str
    target: str
    layer: int
    alpha: float
    conversion_rate: float
    translation_accuracy: float | None


def evaluate_shift(
    encoder: SentenceEncoder,
    source: str,
    target: str,
    difference: np.ndarray,
    layer: int,
    alpha: float,
    frequencies: TokenFrequencies,
    translations: Mapping[int, int],
) -> Shift:
    """Add `alpha` times a difference of means at one layer, and score the predicted tokens.

    Args:
      encoder: model and sentences.
      source: language of the sentences.
      target: language to shift to.
      difference: [L+1, D], mean of the target minus mean of the source.
      layer: layer to shift, 0 (embeddings) to L.
      alpha: factor of the difference.
      frequencies: token frequencies of all languages.
      translations: known translations of source tokens.
    """
    vector = (alpha * difference[layer]).astype(np.float32)
    is_target = frequencies.is_more_frequent(target, source)
    converted = correct = count = known = 0
    translation = np.full(2 * len(encoder.tokenizer), -1)
    translation[[*translations]] = [*translations.values()]
    for _, batch in encoder.batches(source):
        ordinary = batch['ordinary']
        predictions = encoder.predict_shifted(batch, layer, vector)[ordinary]
        converted += int(is_target[predictions].sum())
        count += len(predictions)
        expected = translation[batch['tokens'][ordinary]]
        correct, known = correct + int((predictions == expected).sum()), known + int((expected >= 0).sum())
    return Shift(source, target, layer, alpha, converted / count, correct / known if known else None)


def shifted_tokens(
    encoder: SentenceEncoder, batch: Batch, difference: np.ndarray, layer: int, alphas: Sequence[float]
) -> list[list[str]]:
    """Predict the tokens of one sentence after shifts of several strengths.

    Args:
      encoder: model.
      batch: one sentence, from `SentenceEncoder.single_batch`.
      difference: [L+1, D], mean of the target language minus mean of the source language.
      layer: layer to shift, 0 (embeddings) to L.
      alphas: factors of the difference.

    Returns:
      For each ordinary token, its text followed by the predicted token at each of `alphas`.
    """
    positions = np.flatnonzero(batch['ordinary'][0])
    vectors = [(alpha * difference[layer]).astype(np.float32) for alpha in alphas]
    columns = [batch['tokens'][0], *(encoder.predict_shifted(batch, layer, v)[0] for v in vectors)]
    return [[encoder.token_text(int(column[i])) for column in columns] for i in positions]


def probe_language(vectors: Sequence[np.ndarray], seed: int = 0) -> list[float]:
    """Cross-validated accuracy of a linear classifier that identifies the language of a sentence, for each layer.

    Args:
      vectors: `sentence_vectors` of each language, [L+1, n, D].
      seed: seed of the order of the sentences, which determines the folds.

    Raises:
      UserError: if a language has fewer than two sentences.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.repeat(np.arange(len(vectors)), [v.shape[1] for v in vectors])
    order = np.random.default_rng(seed).permutation(len(labels))
    if (folds := min(5, *np.bincount(labels).tolist())) < 2:
        raise UserError(
            'The language probe needs two or more sentences per language. Raise --limit or pass a longer text.'
        )
    accuracies = []
    for layer in np.concatenate(vectors, 1):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        scores = cross_val_score(classifier, layer[order], labels[order], cv=folds)
        accuracies.append(float(scores.mean()))
    return accuracies
