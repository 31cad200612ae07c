"""Where a multilingual model encodes the language: mean hidden state of each language, mean shifts, and a probe.

Adding the difference between the mean hidden states of two languages to a sentence of one of them makes the masked-LM
head predict words of the other (Liu et al. 2020, arXiv 2010.10041).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.studies.hidden_states import Batch, SentenceEncoder, no_known_words_error


def language_mean(encoder: SentenceEncoder, language: str) -> np.ndarray:
    """Mean hidden state of a language's ordinary tokens in every layer, [L+1, D]."""
    batches = (batch for _, batch in encoder.batches(language))
    states = ((encoder.hidden_states(batch), batch['ordinary']) for batch in batches)
    return mean_hidden_state(states, repr(language))


def mean_hidden_state(states: Iterable[tuple[np.ndarray, np.ndarray]], name: str) -> np.ndarray:
    """Average the hidden states of ordinary tokens.

    Args:
      states: for each batch the hidden states, [L+1, B, T, D], and booleans that mark ordinary tokens, [B, T].
      name: name of the text in error messages.

    Returns:
      [L+1, D] float64.

    Raises:
      UserError: if no token is ordinary.
    """
    total, count = np.zeros(1), 0
    for hidden, ordinary in states:
        total = total + hidden[:, ordinary].sum(1, dtype=np.float64)
        count += int(ordinary.sum())
    if not count:
        raise no_known_words_error(f'The text of {name}')
    return total / count


def token_frequencies(encoder: SentenceEncoder, language: str) -> np.ndarray:
    """Relative frequency of each token in a language, [2V]."""
    counts = np.zeros(2 * len(encoder.tokenizer))
    for _, batch in encoder.batches(language):
        np.add.at(counts, batch['tokens'][batch['ordinary']], 1)
    return counts / max(counts.sum(), 1)


class Shift(NamedTuple):
    """Predictions after shifting the hidden states of the language `source` toward `target`.

    Attributes:
      source: language of the sentences.
      target: language that the hidden states are shifted toward.
      layer: layer that was shifted, 0 (embeddings) to L.
      alpha: factor; the shift added alpha times the difference between the two language means.
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


def evaluate_shifts(
    encoder: SentenceEncoder,
    source: str,
    target: str,
    means: Mapping[str, np.ndarray],
    frequencies: Mapping[str, np.ndarray],
    alphas: Sequence[float],
    translations: Mapping[int, int],
) -> list[Shift]:
    """Add multiples of the difference between two language means, at one layer at a time, and score the predicted tokens.

    Args:
      encoder: model and sentences.
      source: language of the sentences.
      target: language to shift toward.
      means: `language_mean` of each language.
      frequencies: `token_frequencies` of each language.
      alphas: multiples of the difference to add.
      translations: known translations of source tokens.

    Returns:
      A result for each layer and alpha.
    """
    difference, is_target = means[target] - means[source], frequencies[target] > frequencies[source]
    translation = np.full(2 * len(encoder.tokenizer), -1)
    translation[[*translations]] = [*translations.values()]

    def evaluate(layer: int, alpha: float) -> Shift:
        vector = (alpha * difference[layer]).astype(np.float32)
        converted = correct = count = known = 0
        for _, batch in encoder.batches(source):
            ordinary = batch['ordinary']
            predictions = encoder.predict_shifted(batch, layer, vector)[ordinary]
            expected = translation[batch['tokens'][ordinary]]
            converted += int(is_target[predictions].sum())
            correct += int((predictions == expected).sum())
            count += len(predictions)
            known += int((expected >= 0).sum())
        return Shift(source, target, layer, alpha, converted / count, correct / known if known else None)

    # Without a shift the layer makes no difference, so predict only once.
    unshifted = [evaluate(0, 0.0)] if 0 in alphas else []
    return [
        evaluate(layer, alpha) if alpha else unshifted[0]._replace(layer=layer)
        for layer in range(encoder.layers)
        for alpha in alphas
    ]


def shifted_tokens(
    encoder: SentenceEncoder, batch: Batch, difference: np.ndarray, layer: int, alphas: Sequence[float]
) -> list[list[str]]:
    """Predict the tokens of one sentence after shifts of several strengths.

    Args:
      encoder: model.
      batch: one sentence, from `SentenceEncoder.single_batch`.
      difference: [L+1, D], mean of the target language minus mean of the source language.
      layer: layer to shift, 0 (embeddings) to L.
      alphas: multiples of the difference to add.

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
