"""Where is the language? The mean of its hidden states says it; moved by the difference of two, words come out in the other.

After Liu et al. 2020 (arXiv 2010.10041).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.studies.hidden_states import Batch, Reader, no_words


def means(reader: Reader, language: str) -> np.ndarray:
    """The mean hidden state of a language's ordinary tokens: [L+1, D]."""
    return mean_of(reader.batches(language), reader.hidden, repr(language))


def mean_of(
    batches: Iterable[tuple[Any, Batch]], hidden: Callable[[Batch], np.ndarray], name: str
) -> np.ndarray:
    """The mean of hidden states [L+1, B, T, D] where a batch is `ordinary`: [L+1, D].

    Raises:
      UserError: if it is nowhere, with the `name` of the text.
    """
    total, count = np.zeros(1), 0
    for _, batch in batches:
        total = total + hidden(batch)[:, batch['ordinary']].sum(1, dtype=np.float64)
        count += int(batch['ordinary'].sum())
    if not count:
        raise no_words(f'The text of {name}')
    return total / count


class Usage:
    """How often each language uses each token, to tell which language a token is of."""

    def __init__(self, reader: Reader):
        self._languages = reader.languages
        size = 2 * len(reader.tokenizer)
        self._shares = np.zeros((len(self._languages), size))
        for share, language in zip(self._shares, self._languages, strict=True):
            for _, batch in reader.batches(language):
                np.add.at(share, batch['tokens'][batch['ordinary']], 1)
            share /= max(share.sum(), 1)

    def more_in(self, a: str, b: str) -> np.ndarray:
        """[V] booleans: the token is commoner in language a than in b."""
        first, second = (self._shares[self._languages.index(name)] for name in (a, b))
        return first > second


class Shift(NamedTuple):
    """What came out when the hidden states of `source` were moved towards `target`.

    Attributes:
      layer, alpha: where, and by how many times the difference of the means.
      converted: share of the predicted words that are commoner in the target language than in the source.
      translated: share that are the translation of the word that was read, of the words whose translation is known; None
        if it is of none.
    """

    source: str
    target: str
    layer: int
    alpha: float
    converted: float
    translated: float | None


def shift(
    reader: Reader,
    source: str,
    target: str,
    difference: np.ndarray,
    layer: int,
    alpha: float,
    usage: Usage,
    translations: Mapping[int, int],
) -> Shift:
    """Adds `alpha` times the difference of the means [L+1, D] at one layer, and reads the masked LM.

    Args:
      difference: the mean of the target less that of the source.
      translations: of tokens of the source, as far as they are known.
    """
    vector = (alpha * difference[layer]).astype(np.float32)
    of_target = usage.more_in(target, source)
    converted = right = count = known = 0
    table = np.full(2 * len(reader.tokenizer), -1)
    table[[*translations]] = [*translations.values()]
    for _, batch in reader.batches(source):
        ordinary = batch['ordinary']
        words = reader.shifted(batch, layer, vector)[ordinary]
        converted += int(of_target[words].sum())
        count += len(words)
        wanted = table[batch['tokens'][ordinary]]
        right, known = right + int((words == wanted).sum()), known + int((wanted >= 0).sum())
    return Shift(source, target, layer, alpha, converted / count, right / known if known else None)


def shifted_words(
    reader: Reader, batch: Batch, difference: np.ndarray, layer: int, alphas: Sequence[float]
) -> list[list[str]]:
    """For each token of `Reader.one` sentence: itself, and what is predicted there at each of `alphas`; see `shift`."""
    places = np.flatnonzero(batch['ordinary'][0])
    vectors = [(alpha * difference[layer]).astype(np.float32) for alpha in alphas]
    columns = [batch['tokens'][0], *(reader.shifted(batch, layer, vector)[0] for vector in vectors)]
    return [[reader.word(int(column[i])) for column in columns] for i in places]


def probe(vectors: Sequence[np.ndarray], seed: int = 0) -> list[float]:
    """For each layer, how often a linear classifier tells the language of a new sentence by its mean vector.

    `vectors` are the `sentence_vectors` of each language.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.repeat(np.arange(len(vectors)), [v.shape[1] for v in vectors])
    order = np.random.default_rng(seed).permutation(len(labels))
    if (folds := min(5, *np.bincount(labels).tolist())) < 2:
        raise UserError('One sentence of a language is too few to tell it by: read more of them.')
    found = []
    for layer in np.concatenate(vectors, 1):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        found.append(float(cross_val_score(classifier, layer[order], labels[order], cv=folds).mean()))
    return found
