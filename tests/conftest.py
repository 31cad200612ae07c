"""Eight fake CPU devices, strict dtypes, and the small texts that all tests share."""

import os
import pathlib
import random

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUMPY_DTYPE_PROMOTION'] = 'strict'
os.environ['XLA_FLAGS'] = ' '.join(
    [
        '--xla_force_host_platform_device_count=8',
        '--xla_backend_optimization_level=0',  # tests compile much and run little
        os.environ.get('XLA_FLAGS', ''),
    ]
)

import hypothesis
import pytest

from bert_jax.data import tokenizer as tokenizer_lib

hypothesis.settings.register_profile('tests', deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile('tests')

_SUBJECTS = [
    'the old sailor',
    'a small bird',
    'my neighbour',
    'the river',
    'every student',
    'a quiet teacher',
]
_VERBS = ['watches', 'follows', 'remembers', 'carries', 'finds', 'never leaves']
_OBJECTS = [
    'the yellow boat',
    'a long letter',
    'some bread',
    'the open window',
    'an empty house',
    'its own shadow',
]
_TIMES = ['in the morning', 'before winter', 'at night', 'again', 'without a word']


def pytest_collection_modifyitems(items):
    """First what waits longest for other processes, so that it does not come last, on one core alone."""
    items.sort(key=lambda item: item.path.name not in ('test_distributed.py', 'test_slurm.py'))


def sentences(rng: random.Random, n: int) -> list[str]:
    """`n` English sentences."""
    parts = (_SUBJECTS, _VERBS, _OBJECTS, _TIMES)
    return [' '.join(rng.choice(p) for p in parts).capitalize() + '.' for _ in range(n)]


@pytest.fixture(scope='session')
def tokenizer():
    """A WordPiece vocabulary of some two hundred entries, trained on a hundred sentences."""
    config = tokenizer_lib.TokenizerConfig(vocab_size=200)
    return tokenizer_lib.train(sentences(random.Random(0), 100), config)


@pytest.fixture(scope='session')
def words():
    """A tokenizer for which 'w7' is one token, and 'x' and '##y' are pieces of words."""
    entries = [*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(3000)), 'x', '##y', '##z', '.']
    return tokenizer_lib.from_vocab(entries)


@pytest.fixture(scope='session')
def corpus(tmp_path_factory):
    """A text file of forty documents, with blank lines between them and a sentence a line."""
    rng = random.Random(1)
    documents = ['\n'.join(sentences(rng, rng.randint(3, 9))) for _ in range(40)]
    path = tmp_path_factory.mktemp('corpus') / 'corpus.txt'
    path.write_text('\n\n'.join(documents) + '\n')
    return path


@pytest.fixture(scope='session')
def needs_tfds():
    """A function that skips the test unless a data set, such as 'glue/sst2', is prepared here."""

    def check(name: str) -> None:
        data_dir = pathlib.Path(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets').expanduser()
        if not any((data_dir / name).rglob('dataset_info.json')):
            pytest.skip(f'{name} is not prepared in TFDS_DATA_DIR ({data_dir})')

    return check


pytest_plugins = ['tests.runs']
