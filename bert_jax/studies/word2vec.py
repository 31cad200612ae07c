"""Static word vectors as a baseline for contextual ones: word2vec on the pretraining text of a model.

Liu et al. 2020 (arXiv 2004.09205, section 3.3) measure in this way how much of the alignment of two languages is due to
context.
"""

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import prepare
from bert_jax.data.rows import encode_sentences
from bert_jax.studies.hidden_states import SentenceEncoder


def train_word2vec(encoder: SentenceEncoder, width: int = 0) -> np.ndarray:
    """Train skip-gram vectors (Mikolov et al. 2013) on the pretraining text of a model.

    Args:
      encoder: a pretrained model; the text of a `tasks.bilingual` model is used in both languages.
      width: D, width of the vectors; 0 means the width of the model.

    Returns:
      [2V, D] float32 vectors, the second half for fake-language tokens; rare and unseen tokens have zero vectors.

    Raises:
      UserError: if the sentences are not parallel, gensim is not installed, or the model has no pretraining text.
    """
    if not encoder.is_parallel:
        raise UserError(
            '--word2vec compares alignment, which needs translations. Pass a data set with --parallel.'
        )
    try:
        from gensim.models import Word2Vec
    except ImportError as e:
        raise UserError(
            '--word2vec needs gensim, which is not installed. Run `pip install gensim` (Python 3.11 to 3.13).'
        ) from e
    width = width or encoder.pretraining.model.width
    # One worker thread makes the result deterministic.
    model = Word2Vec(_pretraining_sentences(encoder), vector_size=width, sg=1, workers=1)
    vectors = np.zeros((2 * len(encoder.tokenizer), width), np.float32)
    for token in model.wv.index_to_key:
        vectors[int(token)] = model.wv[token]
    return vectors


def _pretraining_sentences(encoder: SentenceEncoder) -> list[list[str]]:
    """Return the training sentences as lists of token ids in string form, as gensim expects."""
    data, fake_language = encoder.pretraining.data, encoder.fake_language
    if not isinstance(data, prepare.TextConfig) or not data.sources:
        raise UserError(
            'The checkpoint was not pretrained on running text. Pass the --workdir of a pretraining run.'
        )
    names = np.array([str(i) for i in range(2 * len(encoder.tokenizer))], object)  # one string for each token
    sentences = []
    for document in prepare.read_documents(data, 'train'):
        for ids in encode_sentences([document], encoder.tokenizer)[0]:
            sentences.append(names[ids].tolist())
            if fake_language is not None:
                sentences.append(names[fake_language.map_ids(ids)].tolist())
    return sentences
