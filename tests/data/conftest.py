"""A vocabulary in which a word is a token, and real data sets where they are prepared."""

import os
import pathlib

import pytest

from bert_jax.data import tokenizer as tokenizer_lib

WORDS = 3000


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes more than some ten seconds')


@pytest.fixture(scope='session')
def words():
    """A tokenizer for which 'w7' is one token, and 'x' and '##y' are pieces of words."""
    entries = [*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(WORDS)), 'x', '##y', '##z', '.']
    return tokenizer_lib.from_vocab(entries)


@pytest.fixture(scope='session')
def sst2():
    """The name of a real data set, if it is there."""
    folder = pathlib.Path(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets').expanduser()
    if not (folder / 'glue' / 'sst2').is_dir():
        pytest.skip('glue/sst2 is not in TFDS_DATA_DIR')
    return 'glue/sst2'
