"""A vocabulary in which a word is a token, and real data sets where they are prepared."""

import pytest

from bert_jax.data import tokenizer as tokenizer_lib

WORDS = 3000


@pytest.fixture(scope='session')
def words():
    """A tokenizer for which 'w7' is one token, and 'x' and '##y' are pieces of words."""
    entries = [*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(WORDS)), 'x', '##y', '##z', '.']
    return tokenizer_lib.from_vocab(entries)


@pytest.fixture(scope='session')
def sst2(needs_tfds):
    """The name of a real data set, if it is there."""
    needs_tfds('glue/sst2')
    return 'glue/sst2'
