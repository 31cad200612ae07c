"""Cross-lingual alignment: whether words and sentences of the same meaning have similar hidden states in two languages.

Ordinary tokens are defined in `hidden_states`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bert_jax.studies.hidden_states import Batch, SentenceEncoder

Encode = Callable[[Batch], np.ndarray]


def word_vectors(
    encoder: SentenceEncoder, language: str, min_count: int = 5, encode: Encode | None = None
) -> dict[int, np.ndarray]:
    """Mean hidden state of each ordinary token that occurs at least `min_count` times.

    Args:
      encoder: model and sentences.
      language: one of the languages of `encoder`.
      min_count: minimum number of occurrences of a token.
      encode: returns the hidden states of a batch, [L+1, B, T, D]; None uses those of `encoder`.

    Returns:
      [L+1, D] for each token.
    """
    size = 2 * len(encoder.tokenizer)
    counts, sums = np.zeros(size), np.zeros(0)
    for _, batch in encoder.batches(language):
        hidden, ordinary = (encode or encoder.hidden_states)(batch), batch['ordinary']
        tokens = batch['tokens'][ordinary]
        if not sums.size:
            sums = np.zeros((size, len(hidden), hidden.shape[-1]), np.float32)
        np.add.at(sums, tokens, hidden[:, ordinary].swapaxes(0, 1))
        np.add.at(counts, tokens, 1)
    return {int(i): sums[i] / counts[i] for i in np.flatnonzero(counts >= min_count)}


def sentence_vectors(encoder: SentenceEncoder, language: str, encode: Encode | None = None) -> np.ndarray:
    """Mean hidden state of each sentence's ordinary tokens in every layer, [L+1, n, D]; see `word_vectors`."""
    vectors, order = [], []
    for indices, batch in encoder.batches(language):
        weight = batch['ordinary'][..., None].astype(np.float32)
        means = ((encode or encoder.hidden_states)(batch) * weight).sum(2) / np.maximum(weight.sum(1), 1)
        vectors.append(means[:, : len(indices)])
        order.append(indices)
    return np.concatenate(vectors, 1)[:, np.argsort(np.concatenate(order))]


def ranks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank of b_i among all rows of `b` by cosine similarity with a_i.

    Args:
      a: [n, D] vectors.
      b: [n, D] vectors, where b_i corresponds to a_i.

    Returns:
      [n] ranks; 1 is the nearest, and ties share their mean rank.
    """
    similarity = normalize(a) @ normalize(b).T
    own = np.diag(similarity)[:, None]
    return 0.5 * (1 + (similarity > own).sum(1) + (similarity >= own).sum(1))


def both_ranks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Ranks in both directions, [2, n]: `ranks(a, b)` and `ranks(b, a)`."""
    return np.stack([ranks(a, b), ranks(b, a)])


def normalize(x: np.ndarray) -> np.ndarray:
    """Scale vectors [..., D] to unit length."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def word_alignment(
    pairs: dict[int, int], source: dict[int, np.ndarray], target: dict[int, np.ndarray]
) -> tuple[list[float], int]:
    """Mean reciprocal rank of the translations of words (Liu et al. 2020, arXiv 2004.09205, section 3.2).

    Args:
      pairs: target token of each source token.
      source: `word_vectors` of the source language.
      target: `word_vectors` of the target language.

    Returns:
      Two values: for each layer the mean of both directions; and the number of pairs used, which are those with
      vectors in both languages. Without such pairs, they are empty and 0.
    """
    known = [(i, j) for i, j in pairs.items() if i in source and j in target]
    if not known:
        return [], 0
    x = np.stack([source[i] for i, _ in known], 1)
    y = np.stack([target[j] for _, j in known], 1)
    return [float(np.mean(1 / both_ranks(u, v))) for u, v in zip(x, y, strict=True)], len(known)


def chance_mrr(n: int) -> float:
    """Expected mean reciprocal rank among `n` randomly ordered candidates."""
    return float(np.mean(1 / np.arange(1, n + 1)))


def sentence_retrieval(x: np.ndarray, y: np.ndarray) -> list[float]:
    """Share of sentences whose nearest neighbor in the other language is their translation, for each layer.

    Args:
      x: `sentence_vectors` of one language, [L+1, n, D].
      y: `sentence_vectors` of the translations, [L+1, n, D].

    Returns:
      The mean of both directions for each layer.
    """
    return [float(np.mean(both_ranks(u, v) == 1)) for u, v in zip(x, y, strict=True)]


def build_dictionary(
    encoder: SentenceEncoder, source: str, target: str, min_count: int = 5
) -> dict[int, int]:
    """Build a dictionary from source tokens to target tokens.

    For a model of `tasks.bilingual` the dictionary is exact. Otherwise it pairs whole words that are each other's best
    match by the Dice coefficient of their occurrences in parallel sentences. Tokens that both languages share, such as
    names and punctuation, are left out.

    Returns:
      Target token of each source token; empty without parallel sentences.
    """
    if encoder.fake_language is not None:
        real = encoder.tokenizer.ordinary_ids
        pairs = {int(i): int(j) for i, j in zip(real, encoder.fake_language.map_ids(real), strict=True)}
        return pairs if source == encoder.languages[0] else {j: i for i, j in pairs.items()}
    if not encoder.is_parallel:
        return {}
    from scipy import sparse

    def occurrences(language: str) -> Any:
        """Mark the whole-word tokens of each sentence in a sparse 0/1 matrix [sentences, V]."""
        found = sparse.lil_matrix((encoder.sentences, len(encoder.tokenizer)), dtype=np.float32)
        for indices, batch in encoder.batches(language):
            continues = encoder.tokenizer.continues_word[batch['tokens']]
            is_word = batch['ordinary'] & ~continues
            is_word[:, :-1] &= ~continues[:, 1:]
            for i, tokens, words in zip(indices, batch['tokens'], is_word, strict=False):
                found[i, np.unique(tokens[words])] = 1
        return found.tocsc()

    x, y = occurrences(source), occurrences(target)
    frequent_x, frequent_y = (np.flatnonzero(min_count <= m.sum(0).A1) for m in (x, y))
    if not len(frequent_x) or not len(frequent_y):
        return {}
    x, y = x[:, frequent_x], y[:, frequent_y]
    dice = 2 * (x.T @ y).toarray() / (x.sum(0).T.A + y.sum(0).A)
    best_x, best_y = dice.argmax(1), dice.argmax(0)
    return {
        int(frequent_x[i]): int(frequent_y[j])
        for i, j in enumerate(best_x)
        if best_y[j] == i and dice[i, j] > 0.3 and frequent_x[i] != frequent_y[j]
    }
