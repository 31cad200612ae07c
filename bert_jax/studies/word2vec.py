"""Static word vectors to hold beside contextual ones: word2vec on the text that a model was pretrained on.

Liu et al. 2020 (arXiv 2004.09205, section 3.3): how much of the alignment of two languages is due to context?
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import prepare
from bert_jax.data.rows import sentences
from bert_jax.studies.hidden_states import Reader


class StaticReader:
    """Reads what `reader` reads by a table of vectors [V, D]: one layer, in which a word is the same everywhere."""

    def __init__(self, reader: Reader, table: np.ndarray):
        self.tokenizer, self.languages, self.parallel = reader.tokenizer, reader.languages, reader.parallel
        self.batches, self._table = reader.batches, table

    def hidden(self, batch: dict[str, Any]) -> np.ndarray:
        """[1, B, T, D] float32."""
        return self._table[batch['tokens']][None]


def word2vec(reader: Reader, width: int = 0) -> np.ndarray:
    """Skip-gram vectors of the tokens that a model was pretrained on (Mikolov et al. 2013); rare ones are zero.

    Args:
      reader: of a pretraining, whose training text is read; of a model of `tasks.bilingual` in both languages.
      width: D; 0 is that of the model.

    Returns:
      [2V, D], the second half for the tokens of a fake language.

    Raises:
      UserError: without gensim, without text, or without the translations by which they are compared.
    """
    if not reader.parallel:
        raise UserError('Static vectors are compared by translations: give some by --parallel.')
    try:
        from gensim.models import Word2Vec
    except ImportError as e:
        raise UserError(
            'Static vectors are made by gensim, which is not installed: pip install gensim (Python 3.11 to 3.13).'
        ) from e
    width = width or reader.pretraining.model.width
    model = Word2Vec(_Sentences(reader), vector_size=width, sg=1, workers=1)  # one thread makes it exact
    table = np.zeros((2 * len(reader.tokenizer), width), np.float32)
    for token in model.wv.index_to_key:
        table[int(token)] = model.wv[token]
    return table


class _Sentences:
    """The training sentences as lists of token ids, in words for gensim, which reads them several times."""

    def __init__(self, reader: Reader):
        text = reader.pretraining.data
        if not isinstance(text, prepare.TextConfig) or not text.sources:
            raise UserError(
                'The checkpoint was not pretrained on running text: give the --workdir of a pretraining.'
            )
        documents = prepare.documents(text, 'train')
        self._ids = [ids for document in documents for ids in reader.tokenizer.encode(sentences(document))]
        self._disguise = reader.disguise

    def __iter__(self) -> Iterator[list[str]]:
        for ids in self._ids:
            yield [*map(str, ids)]
            if self._disguise is not None:
                yield [*map(str, self._disguise.ids(ids))]
