"""Do words and sentences that mean the same lie together, whatever their language?"""

from typing import Any

import numpy as np

from bert_jax.studies.hidden_states import Reader
from bert_jax.studies.word2vec import StaticReader


def word_vectors(reader: Reader | StaticReader, language: str, least: int = 5) -> dict[int, np.ndarray]:
    """The mean hidden states [L+1, D] of each ordinary token that occurs `least` times or more."""
    sums: np.ndarray | None = None
    counts = np.zeros(0)
    for _, batch in reader.batches(language):
        hidden, ordinary = reader.hidden(batch), batch['ordinary']
        tokens = batch['tokens'][ordinary]
        if sums is None:
            most = 2 * len(reader.tokenizer)
            sums, counts = np.zeros((most, len(hidden), hidden.shape[-1]), np.float32), np.zeros(most)
        np.add.at(sums, tokens, hidden[:, ordinary].swapaxes(0, 1))
        np.add.at(counts, tokens, 1)
    if sums is None:
        return {}
    return {int(i): sums[i] / counts[i] for i in np.flatnonzero(counts >= least)}


def sentence_vectors(reader: Reader | StaticReader, language: str) -> np.ndarray:
    """The mean of each sentence's ordinary tokens in every layer: [L+1, n, D]."""
    found, order = [], []
    for indices, batch in reader.batches(language):
        weight = batch['ordinary'][..., None].astype(np.float32)
        means = (reader.hidden(batch) * weight).sum(2) / np.maximum(weight.sum(1), 1)
        found.append(means[:, : len(indices)])
        order.append(indices)
    return np.concatenate(found, 1)[:, np.argsort(np.concatenate(order))]


def ranks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where b_i stands among all of b, by cosine with a_i: [n, D] each, to [n]; 1 is the nearest, ties are in the middle."""
    similarity = unit(a) @ unit(b).T
    own = np.diag(similarity)[:, None]
    return 0.5 * (1 + (similarity > own).sum(1) + (similarity >= own).sum(1))


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors [..., D] at length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def word_alignment(
    pairs: dict[int, int], first: dict[int, np.ndarray], second: dict[int, np.ndarray]
) -> tuple[list[float], int]:
    """Mean reciprocal rank of the translations of words, both ways, for each layer, and of how many words.

    `pairs` are tokens and their translations (Liu et al. 2020, arXiv 2004.09205, section 3.2); then come the
    `word_vectors` of the two languages.
    """
    known = [(i, j) for i, j in pairs.items() if i in first and j in second]
    if not known:
        return [], 0
    x = np.stack([first[i] for i, _ in known], 1)
    y = np.stack([second[j] for _, j in known], 1)
    return [
        float(np.mean([(1 / ranks(u, v)).mean(), (1 / ranks(v, u)).mean()]))
        for u, v in zip(x, y, strict=True)
    ], len(known)


def chance(n: int) -> float:
    """The mean reciprocal rank of a random order of n."""
    return float(np.mean(1 / np.arange(1, n + 1)))


def sentence_retrieval(x: np.ndarray, y: np.ndarray) -> list[float]:
    """The share of sentences whose translation is their nearest neighbour, both ways, for each layer.

    `x` and `y` are the `sentence_vectors` of two languages.
    """
    return [
        float(np.mean([(ranks(u, v) == 1).mean(), (ranks(v, u) == 1).mean()]))
        for u, v in zip(x, y, strict=True)
    ]


def dictionary(reader: Reader, a: str, b: str, least: int = 5) -> dict[int, int]:
    """Translations of tokens of language a into b.

    Exact for a model of `tasks.bilingual`; else pairs of whole words each of which is the other's best match by the Dice
    coefficient of the parallel sentences that they are in; none without parallel sentences. What both languages write
    alike, such as names and punctuation, is no translation.
    """
    if reader.disguise is not None:
        real = reader.tokenizer.ordinary
        pairs = {int(i): int(j) for i, j in zip(real, reader.disguise.ids(real), strict=True)}
        return pairs if a == reader.languages[0] else {j: i for i, j in pairs.items()}
    if not reader.parallel:
        return {}
    from scipy import sparse

    def occurrences(language: str) -> Any:
        found = sparse.lil_matrix((reader.sentences, len(reader.tokenizer)), dtype=np.float32)
        for indices, batch in reader.batches(language):
            goes_on = reader.tokenizer.continues[batch['tokens']]
            whole = batch['ordinary'] & ~goes_on
            whole[:, :-1] &= ~goes_on[:, 1:]
            for i, tokens, words in zip(indices, batch['tokens'], whole, strict=False):
                found[i, np.unique(tokens[words])] = 1
        return found.tocsc()

    x, y = occurrences(a), occurrences(b)
    often_x, often_y = (np.flatnonzero(least <= m.sum(0).A1) for m in (x, y))
    if not len(often_x) or not len(often_y):
        return {}
    x, y = x[:, often_x], y[:, often_y]
    dice = 2 * (x.T @ y).toarray() / (x.sum(0).T.A + y.sum(0).A)
    best_x, best_y = dice.argmax(1), dice.argmax(0)
    return {
        int(often_x[i]): int(often_y[j])
        for i, j in enumerate(best_x)
        if best_y[j] == i and dice[i, j] > 0.3 and often_x[i] != often_y[j]
    }
