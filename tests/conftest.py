"""Test environment (eight fake CPU devices, strict dtype promotion) and small texts shared by all tests."""

import importlib.metadata
import os
import pathlib
import random
import sys
from typing import Any, ClassVar

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUMPY_DTYPE_PROMOTION'] = 'strict'
os.environ['XLA_FLAGS'] = ' '.join(
    [
        '--xla_force_host_platform_device_count=8',
        # Tests spend more time compiling than running. Only JAX 0.10 has the last two options.
        '--xla_backend_optimization_level=0',
        '--xla_cpu_parallel_codegen_split_count=1',
        *(
            ['--xla_cpu_use_fusion_emitters=false', '--xla_cpu_enable_concurrency_optimized_scheduler=false']
            if importlib.metadata.version('jaxlib').startswith('0.10.')
            else []
        ),
        os.environ.get('XLA_FLAGS', ''),
    ]
)

import hypothesis
import pytest

from bert_jax.core import paths
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training

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
_SLOW = 'slow: pass --slow'
# Files whose tests start several processes, and those that take the longest.
_FIRST = {
    *('test_distributed.py', 'test_slurm.py'),
    *('test_phases.py', 'test_embed.py', 'test_packing.py', 'test_rtd.py', 'test_hybrid.py', 'test_step.py'),
}
_TIMES = ['in the morning', 'before winter', 'at night', 'again', 'without a word']


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='run the slow tests as well')


def pytest_collection_modifyitems(config, items):
    """Skip slow tests without --slow; begin with files that would keep only one core busy at the end."""
    if not config.getoption('--slow'):
        for item in items:
            if item.get_closest_marker('slow'):
                item.add_marker(pytest.mark.skip(reason=_SLOW))
    items.sort(key=lambda item: item.path.name not in _FIRST)


def pytest_terminal_summary(terminalreporter):
    """Say how many slow tests were left out."""
    reports = terminalreporter.getreports('skipped')
    if n := sum(_SLOW in str(report.longrepr) for report in reports):
        terminalreporter.write_line(
            f'left out {n} slow tests; `bash launch/test.sh --slow` runs them as well'
        )


def sentences(rng: random.Random, n: int) -> list[str]:
    """Generate `n` English sentences."""
    parts = (_SUBJECTS, _VERBS, _OBJECTS, _TIMES)
    return [' '.join(rng.choice(p) for p in parts).capitalize() + '.' for _ in range(n)]


@pytest.fixture(autouse=True)
def close_figures():
    """Close the figures of a test; Matplotlib warns of more than 20."""
    yield
    if pyplot := sys.modules.get('matplotlib.pyplot'):
        pyplot.close('all')


@pytest.fixture(scope='session')
def tokenizer():
    """WordPiece tokenizer of 200 entries, trained on 100 sentences."""
    config = tokenizer_lib.TokenizerConfig(vocab_size=200)
    return tokenizer_training.train(sentences(random.Random(0), 100), config)


@pytest.fixture(scope='session')
def word_tokenizer():
    """WordPiece tokenizer for which 'w7' is one token, and 'xy' is two."""
    entries = [*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(3000)), 'x', '##y', '##z', '.']
    return tokenizer_lib.from_vocab(entries)


@pytest.fixture(scope='session')
def corpus(tmp_path_factory):
    """Text file of 40 documents, one sentence per line, separated by blank lines."""
    rng = random.Random(1)
    documents = ['\n'.join(sentences(rng, rng.randint(3, 9))) for _ in range(40)]
    path = tmp_path_factory.mktemp('corpus') / 'corpus.txt'
    path.write_text('\n\n'.join(documents) + '\n')
    return path


@pytest.fixture(scope='session')
def needs_tfds():
    """Function that skips the test unless a TFDS data set, such as 'glue/sst2', is prepared on this machine."""

    def check(name: str) -> None:
        data_dir = pathlib.Path(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets').expanduser()
        if not any((data_dir / name).rglob('dataset_info.json')):
            pytest.skip(f'{name} is not prepared in {data_dir} (TFDS_DATA_DIR)')

    return check


@pytest.fixture
def bucket(monkeypatch):
    """Path s3://bucket, on a file system in memory."""
    import fsspec
    from etils.epath import backend
    from fsspec.implementations.memory import MemoryFileSystem

    class Memory(MemoryFileSystem):
        protocol = ('s3',)
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = ['']

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.replace('s3://', 'memory://'))

    file_systems = {'s3': Memory()}
    monkeypatch.setattr(fsspec, 'filesystem', lambda scheme, **_: file_systems[scheme])
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield paths.make_path('s3://bucket')
    backend.fsspec_backend._get_filesystem.cache_clear()


pytest_plugins = ['tests.runs']
