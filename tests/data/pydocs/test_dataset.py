"""The `pydocs` data set, built from a corpus of a few small files with known examples."""

import collections
import pickle

import pytest
import tensorflow_datasets as tfds

from bert_jax.data.pydocs import dataset, examples, source, token_roles

# The name of a module determines its split: kite and lamp are in train, shapes in validation, cafe in test.
KITE = '''"""Kites that fly, and the few things to do with them."""

import math
from os import path as p


class Kite:
    """A toy that the wind carries."""

    @property
    def height(self) -> float:
        """How high the kite stands now."""
        return self._height

    def climb(self, meters: float, speed=2, *, unit: str = 'm') -> bool:
        """Let the line out. Wait for :class:`Wind` first.

        Args:
          meters (int, optional): How far to climb, measured
            along the line. Negative values are refused.
          speed: Meters per second. Defaults to 2.

        Returns:
          True if the kite still flies.

        Example::

            kite.climb(3)

        >>> kite.climb(1)
        True
        """
        self.move(meters, speed=speed)  # Up.


def fly(kite):
    """Send a kite into the air."""
    return f'{kite!r} up'
'''
LAMP = '''"""Kites that fly, and the few things to do with them."""


def switch(lamp, on=True):
    """Turn the lamp on or off."""


def paint(lamp, color):
    """Give the lamp another color."""
'''
SHAPES = '''"""Plane shapes and their areas, in the style of NumPy."""


def area(width, height=1.0):
    """Compute the area of a rectangle.

    Parameters
    ----------
    width : float, optional
        The longer side. It
        is never negative.
    height: array-like of shape (n,)
        The shorter side of it.

    Returns
    -------
    total : float
        The product of both sides.
    """
    return width * height


def fly(kite):
    """Send a kite into the air."""
'''
CAFE = '''# -*- coding: latin-1 -*-
"""Orders at the caf\xe9, in an old encoding."""


def order(dish):
    """Ask the caf\xe9 for one dish.

    :param dish: What to eat today.
    :type dish: str
    :rtype: bool
    """


def pay(bill):
    """Settle the bill in coins."""
'''


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / 'corpus'
    folder.mkdir()
    for name, text in (('kite', KITE), ('lamp', LAMP), ('shapes', SHAPES)):
        (folder / f'{name}.py').write_text(text, 'utf-8')
    (folder / 'cafe.py').write_text(CAFE, 'latin-1')
    (folder / 'broken.py').write_text('"""A module that does not parse."""\ndef f(:\n', 'utf-8')
    (folder / 'bytes.py').write_bytes('"""Undeclared caf\xe9 encoding here."""\n'.encode('latin-1'))
    (folder / 'nulls.py').write_bytes(b'"""A module with a null byte."""\n\0\n')
    (folder / 'odd.py').write_bytes(b'# coding: nonsense\n"""A module with an unknown encoding."""\n')
    (folder / 'test_kite.py').write_text('"""Tests of kites are not read at all."""\n', 'utf-8')
    return str(folder)


def build(config, corpus, data_dir):
    """Build a config and read it with `tfds.data_source`; return lists of examples by split."""
    dataset.Pydocs(config=config, data_dir=data_dir, roots=[corpus]).download_and_prepare()
    sources = tfds.data_source(f'pydocs/{config}', data_dir=data_dir)
    return {split: [plain(row) for row in rows] for split, rows in sources.items()}


def plain(value):
    """Convert bytes and arrays in an example to strings, numbers and lists."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        return value.decode()
    return plain(value.tolist()) if hasattr(value, 'tolist') else value


def test_invalid_files_and_tests_are_skipped(corpus):
    names = [module.name for module in source.read_corpus(source.source_files([corpus]))]
    assert names == ['cafe', 'kite', 'lamp', 'shapes']


def test_module_name_determines_the_split(corpus):
    modules = source.read_corpus(source.source_files([corpus]))
    assert {module.name: module.split for module in modules} == {
        'kite': 'train',
        'lamp': 'train',
        'shapes': 'validation',
        'cafe': 'test',
    }


def test_text(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, 'MIN_DOCUMENT_CHARS', 120)
    splits = build('text', corpus, tmp_path / 'data')
    assert set(splits) == {'train', 'validation'}
    (kite,) = splits['train']  # the new text in lamp is too short
    assert kite == {
        'title': 'kite',
        'text': 'Kites that fly, and the few things to do with them.\n\n'
        'A toy that the wind carries.\n\n'
        'def height(self) -> float\n\n'
        'How high the kite stands now.\n\n'
        "def climb(self, meters: float, speed=2, *, unit: str = 'm') -> bool\n\n"
        'Let the line out. Wait for `Wind` first.\n\n'
        'Args:\n'
        '  meters (int, optional): How far to climb, measured along the line. '
        'Negative values are refused.\n'
        '  speed: Meters per second. Defaults to 2.\n\n'
        'Returns:\n'
        '  True if the kite still flies.\n\n'
        'def fly(kite)\n\n'
        'Send a kite into the air.',
    }
    (shapes,) = splits['validation']
    assert shapes['text'].endswith(
        'Parameters\n'
        'width : float, optional\n'
        '    The longer side. It is never negative.\n'
        'height : array-like of shape (n,)\n'
        '    The shorter side of it.\n\n'
        'Returns\n'
        'total : float\n'
        '    The product of both sides.'
    )


def test_classify(corpus, tmp_path):
    splits = build('classify', corpus, tmp_path / 'data')
    found = {
        split: {row['text']: examples.KINDS[row['label']] for row in rows} for split, rows in splits.items()
    }
    assert found == {
        'train': {
            'Kites that fly, and the few things to do with them.': 'module',
            'A toy that the wind carries.': 'class',
            'How high the kite stands now.': 'property',
            'Let the line out. Wait for `Wind` first.': 'method',
            'Send a kite into the air.': 'function',
            'Turn the lamp on or off.': 'function',
            'Give the lamp another color.': 'function',
        },
        'validation': {
            'Plane shapes and their areas, in the style of NumPy.': 'module',
            'Compute the area of a rectangle.': 'function',
        },
        'test': {
            'Orders at the caf\xe9, in an old encoding.': 'module',
            'Ask the caf\xe9 for one dish.': 'function',
            'Settle the bill in coins.': 'function',
        },
    }


def test_pair(corpus, tmp_path):
    splits = build('pair', corpus, tmp_path / 'data')
    climb = "def climb(self, meters: float, speed=2, *, unit: str = 'm') -> bool"
    height = 'def height(self) -> float'
    train = {(r['signature'], r['summary'], examples.MATCH[r['label']]) for r in splits['train']}
    assert train >= {
        (climb, 'Let the line out.', 'match'),
        (height, 'How high the kite stands now.', 'match'),
        ('def switch(lamp, on=True)', 'Turn the lamp on or off.', 'match'),
    }
    assert 'validation' not in splits  # only `area` has a summary of its own
    for rows in splits.values():
        for field in ('signature', 'summary'):
            uses = collections.Counter((row[field], row['label']) for row in rows)
            texts = {row[field] for row in rows}
            assert uses == {(text, label): 1 for text in texts for label in (0, 1)}
        truth = {row['signature']: row['summary'] for row in rows if row['label'] == 1}
        assert all(truth[r['signature']] != r['summary'] for r in rows if r['label'] == 0)


def test_pairs_stay_in_their_split_and_mismatches_differ_in_name(tmp_path):
    (tmp_path / 'tree').mkdir()
    for i in range(120):
        name = 'again' if i % 3 == 0 else f'f_{i}'
        text = f'def {name}(x{i}):\n    """Describe the thing number {i}."""\n'
        (tmp_path / 'tree' / f'n{i}.py').write_text(text, 'utf-8')
    splits = dataset.make_examples('pair', [tmp_path])
    assert len(splits) > 1
    for field in ('signature', 'summary'):
        texts = [{row[field] for row in rows.values()} for rows in splits.values()]
        assert len(set.union(*texts)) == sum(map(len, texts))
    for rows in splits.values():
        names = {
            row['summary']: row['signature'].split('(')[0] for row in rows.values() if row['label'] == 'match'
        }
        wrong = [row for row in rows.values() if row['label'] == 'mismatch']
        assert 2 * len(wrong) == len(rows) > 2
        assert all(names[row['summary']] != row['signature'].split('(')[0] for row in wrong)


def test_tagging(corpus, tmp_path):
    splits = build('tagging', corpus, tmp_path / 'data')
    train = [
        list(zip(row['tokens'], (token_roles.TAGS[tag] for tag in row['tags']), strict=True))
        for row in splits['train']
    ]
    fly = [
        ('def', 'keyword'),
        ('fly', 'function'),
        ('(', 'operator'),
        ('kite', 'parameter'),
        (')', 'operator'),
        (':', 'operator'),
        ('"""Send a kite into the air."""', 'string'),
        ('return', 'keyword'),
        ("f'{kite!r} up'", 'string'),
    ]
    imports = [
        ('import', 'keyword'),
        ('math', 'module'),
        ('from', 'keyword'),
        ('os', 'module'),
        ('import', 'keyword'),
        ('path', 'module'),
        ('as', 'keyword'),
        ('p', 'module'),
    ]
    assert fly in train
    assert imports in train


def test_qa(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, 'MAX_QUESTIONS', 20)
    splits = build('qa', corpus, tmp_path / 'data')
    answers_by_question = collections.defaultdict(dict)
    for rows in splits.values():
        for row in rows:
            answers = row['answers']
            for text, start in zip(answers['text'], answers['answer_start'], strict=True):
                assert row['context'][start : start + len(text)] == text
            answers_by_question[row['title']][row['question']] = answers['text']
    easy = set(answers_by_question['kite']) & {
        'What is the default of `unit`?',
        'What type is the parameter `unit`?',
    }
    assert len(easy) <= 1
    for question in easy:
        del answers_by_question['kite'][question]
    returned = answers_by_question['kite'].pop('What type does `climb` return?', ['bool'])
    assert returned == ['bool']
    assert answers_by_question == {
        'kite': {
            'What is the parameter `meters`?': ['How far to climb, measured along the line'],
            'What type is the parameter `meters`?': ['int', 'float'],
            'What is the parameter `speed`?': ['Meters per second'],
            'What is the default of `speed`?': ['2'],
            'What does `climb` return?': ['True if the kite still flies'],
        },
        'shapes': {
            'What is the parameter `width`?': ['The longer side'],
            'What type is the parameter `width`?': ['float'],
            'What is the parameter `height`?': ['The shorter side of it'],
            'What type is the parameter `height`?': ['array-like'],
            'What is the default of `height`?': ['1.0'],
            'What does `area` return?': ['The product of both sides'],
            'What type does `area` return?': ['float'],
        },
        'cafe': {
            'What is the parameter `dish`?': ['What to eat today'],
            'What type is the parameter `dish`?': ['str'],
            'What type does `order` return?': ['bool'],
        },
    }


@pytest.mark.parametrize('config', list(dataset.EXAMPLES))
def test_builds_are_deterministic(config, corpus, tmp_path):
    first = build(config, corpus, tmp_path / 'first')
    assert build(config, corpus, tmp_path / 'second') == first
    assert first['train']


@pytest.mark.parametrize(('config', 'field'), [('classify', 'text'), ('pair', 'summary')])
def test_train_texts_are_in_no_other_split(config, field, corpus):
    splits = dataset.make_examples(config, [corpus])
    texts = {split: {row[field] for row in rows.values()} for split, rows in splits.items()}
    assert 'Send a kite into the air.' in texts['train']  # also occurs in shapes
    assert not any(texts['train'] & texts[split] for split in set(texts) - {'train'})


def test_corpus_is_written_as_json_and_read_back_equal(corpus):
    modules = source.read_corpus(source.source_files([corpus]))
    assert any(item.signature and item.signature.types for module in modules for item in module.items)
    assert source.from_json(source.to_json(modules)) == modules


def test_builder_can_be_pickled(corpus, tmp_path):
    builder = dataset.Pydocs(config='text', data_dir=tmp_path, roots=[corpus])
    copy = pickle.loads(pickle.dumps(builder))
    assert copy._roots == [corpus]
    assert copy.data_path == builder.data_path
