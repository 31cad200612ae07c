"""The `pydocs` data set, on a corpus of a few small files whose examples are known."""

import ast
import collections
import pickle

import pytest
import tensorflow_datasets as tfds

from bert_jax.data.pydocs import dataset, source

# The split of a module follows from its name: kite and lamp are in train, shapes and island in
# validation, cafe and bridge in test.
KITE = '''"""Kites that fly, and the few things that one can do with them."""

import math
from os import path as p


class Kite:
    """A toy that the wind carries."""

    @property
    def height(self) -> float:
        """How high the kite stands now."""
        return self._height

    def climb(self, metres: float, speed=2, *, unit: str = 'm') -> bool:
        """Let the line out. Wait for :class:`Wind` first.

        Args:
          metres (int, optional): How far to climb, measured
            along the line. Negative values are refused.
          speed: Metres per second. Defaults to 2.

        Returns:
          True if the kite still flies.

        Example::

            kite.climb(3)

        >>> kite.climb(1)
        True
        """
        self.move(metres, speed=speed)  # Up.


def fly(kite):
    """Send a kite into the air."""
    return f'{kite!r} up'
'''
LAMP = '''"""Kites that fly, and the few things that one can do with them."""


def switch(lamp, on=True):
    """Turn the lamp on or off."""


def paint(lamp, colour):
    """Give the lamp another colour."""
'''
SHAPES = '''"""Plane shapes and the sums that one does with them, in the style of NumPy."""


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
    (folder / 'odd.py').write_bytes(b'# coding: nonsense\n"""A module of no known coding."""\n')
    (folder / 'test_kite.py').write_text('"""Tests of kites are not read at all."""\n', 'utf-8')
    return str(folder)


def build(config, corpus, data_dir):
    """Builds, then reads back with `tfds.data_source` alone: plain lists by split."""
    dataset.Pydocs(config=config, data_dir=data_dir, roots=[corpus]).download_and_prepare()
    sources = tfds.data_source(f'pydocs/{config}', data_dir=data_dir)
    return {split: [plain(row) for row in rows] for split, rows in sources.items()}


def plain(value):
    """Rows as text, numbers, lists and dicts only."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        return value.decode()
    return plain(value.tolist()) if hasattr(value, 'tolist') else value


def test_unreadable_files_and_tests_are_skipped(corpus):
    names = [module.name for module in source.read_corpus((corpus,))]
    assert names == ['cafe', 'kite', 'lamp', 'shapes']


def test_each_module_lies_in_one_split_by_its_name(corpus):
    modules = source.read_corpus((corpus,))
    assert {module.name: module.split for module in modules} == {
        'kite': 'train',
        'lamp': 'train',
        'shapes': 'validation',
        'cafe': 'test',
    }


def test_text(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, 'MIN_DOCUMENT', 120)
    splits = build('text', corpus, tmp_path / 'data')
    assert set(splits) == {'train', 'validation'}
    (kite,) = splits['train']  # What is new in the lamp's module is too short.
    assert kite == {
        'title': 'kite',
        'text': 'Kites that fly, and the few things that one can do with them.\n\n'
        'A toy that the wind carries.\n\n'
        'def height(self) -> float\n\n'
        'How high the kite stands now.\n\n'
        "def climb(self, metres: float, speed=2, *, unit: str = 'm') -> bool\n\n"
        'Let the line out. Wait for `Wind` first.\n\n'
        'Args:\n'
        '  metres (int, optional): How far to climb, measured along the line. '
        'Negative values are refused.\n'
        '  speed: Metres per second. Defaults to 2.\n\n'
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
        split: {row['text']: dataset.KINDS[row['label']] for row in rows} for split, rows in splits.items()
    }
    assert found == {
        'train': {
            'Kites that fly, and the few things that one can do with them.': 'module',
            'A toy that the wind carries.': 'class',
            'How high the kite stands now.': 'property',
            'Let the line out. Wait for `Wind` first.': 'method',
            'Send a kite into the air.': 'function',
            'Turn the lamp on or off.': 'function',
            'Give the lamp another colour.': 'function',
        },
        'validation': {
            'Plane shapes and the sums that one does with them, in the style of NumPy.': 'module',
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
    climb = "def climb(self, metres: float, speed=2, *, unit: str = 'm') -> bool"
    height = 'def height(self) -> float'
    train = {(r['signature'], r['summary'], dataset.MATCH[r['label']]) for r in splits['train']}
    assert train >= {
        (climb, 'Let the line out.', 'match'),
        (height, 'How high the kite stands now.', 'match'),
        ('def switch(lamp, on=True)', 'Turn the lamp on or off.', 'match'),
    }
    assert 'validation' not in splits  # `area` is the only one there with a summary of its own.
    for rows in splits.values():
        for field in ('signature', 'summary'):
            uses = collections.Counter((row[field], row['label']) for row in rows)
            texts = {row[field] for row in rows}
            assert uses == {(text, label): 1 for text in texts for label in (0, 1)}
        truth = {row['signature']: row['summary'] for row in rows if row['label'] == 1}
        assert all(truth[r['signature']] != r['summary'] for r in rows if r['label'] == 0)


def test_pairs_stay_in_their_split_and_mismatch_names(tmp_path):
    (tmp_path / 'tree').mkdir()
    for i in range(120):
        name = 'again' if i % 3 == 0 else f'f_{i}'
        text = f'def {name}(x{i}):\n    """Describe the thing number {i}."""\n'
        (tmp_path / 'tree' / f'n{i}.py').write_text(text, 'utf-8')
    splits = dataset.examples('pair', [tmp_path])
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
        list(zip(row['tokens'], (dataset.TAGS[tag] for tag in row['tags']), strict=True))
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


def test_tags_of_every_kind():
    code = 'class A(B):\n    x: int = 0\n    def f(self, y=1):\n        g.h(y, z=self.w)  # !\n'
    code += "        print('" + 60 * 'long ' + "')\n"
    tagged = dataset.tag(code)
    assert ' '.join(f'{token}/{tag}' for token, tag in tagged[:-5]) == (
        'class/keyword A/class (/operator B/variable )/operator :/operator '
        'x/variable :/operator int/variable =/operator 0/number '
        'def/keyword f/function (/operator self/parameter ,/operator y/parameter =/operator '
        '1/number )/operator :/operator g/variable ./operator h/call (/operator y/variable '
        ',/operator z/argument =/operator self/variable ./operator w/attribute )/operator'
    )
    long = "'" + ('long ' * 8)[:39].rstrip()
    kinds = ['comment', 'call', 'operator', 'string', 'operator']
    assert tagged[-5:] == list(zip(['# !', 'print', '(', long, ')'], kinds, strict=True))


def test_tagging_does_not_take_an_f_string_apart():
    code = "def f():\n    return f'{a:{b}} {\"c\"}' + f'''x\n{y}'''\n"
    strings = [token for token, tag in dataset.tag(code) if tag == 'string']
    assert strings == ['f\'{a:{b}} {"c"}\'', "f'''x {y}'''"]


def test_qa(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, 'MAX_QUESTIONS', 20)
    splits = build('qa', corpus, tmp_path / 'data')
    found = collections.defaultdict(dict)
    for rows in splits.values():
        for row in rows:
            answers = row['answers']
            for text, start in zip(answers['text'], answers['answer_start'], strict=True):
                assert row['context'][start : start + len(text)] == text
            found[row['title']][row['question']] = answers['text']
    easy = set(found['kite']) & {
        'What is the default of `unit`?',
        'What type is the parameter `unit`?',
    }
    assert len(easy) <= 1
    for question in easy:
        del found['kite'][question]
    returned = found['kite'].pop('What type does `climb` return?', ['bool'])
    assert returned == ['bool']
    assert found == {
        'kite': {
            'What is the parameter `metres`?': ['How far to climb, measured along the line'],
            'What type is the parameter `metres`?': ['int', 'float'],
            'What is the parameter `speed`?': ['Metres per second'],
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
def test_building_twice_gives_the_same_examples_in_the_same_order(config, corpus, tmp_path):
    first = build(config, corpus, tmp_path / 'first')
    source.read_corpus.cache_clear()
    assert build(config, corpus, tmp_path / 'second') == first
    assert first['train']


@pytest.mark.parametrize(('config', 'field'), [('classify', 'text'), ('pair', 'summary')])
def test_no_text_of_train_is_in_another_split(config, field, corpus):
    splits = dataset.examples(config, [corpus])
    texts = {split: {row[field] for row in rows.values()} for split, rows in splits.items()}
    assert 'Send a kite into the air.' in texts['train']  # It is in the shapes' module as well.
    assert not any(texts['train'] & texts[split] for split in set(texts) - {'train'})


def test_a_builder_can_be_pickled(corpus, tmp_path):
    builder = dataset.Pydocs(config='text', data_dir=tmp_path, roots=[corpus])
    copy = pickle.loads(pickle.dumps(builder))
    assert copy._roots == [corpus]
    assert copy.data_path == builder.data_path


def test_signature_marks_types_and_defaults():
    code = 'async def f(a, /, b: int = 1, *args: str, c, d=(2, 3), **kw) -> list[int]: ...'
    signature = source.make_signature(ast.parse(code).body[0])
    text = signature.text
    assert text == 'def f(a, /, b: int = 1, *args: str, c, d=(2, 3), **kw) -> list[int]'
    assert {k: text[slice(*s)] for k, s in signature.types.items()} == {'b': 'int', 'args': 'str'}
    assert {k: text[slice(*s)] for k, s in signature.defaults.items()} == {'b': '1', 'd': '(2, 3)'}
    assert text[slice(*signature.returns)] == 'list[int]'


@pytest.mark.parametrize(
    ('doc', 'expected'),
    [
        ('Uses :func:`~a.b.c` and :ref:`text <t>`.', 'Uses `c` and text.'),
        ('Is ``x``, see [1]_, `site <https://a.b>`_.', 'Is `x`, see [1], site.'),
        ('Takes *x* and **kwargs**, not *args, **kw.', 'Takes x and kwargs, not *args, **kw.'),
        ('One.\n\n.. code-block:: python\n\n    x = 1\n\nTwo.', 'One.\n\nTwo.'),
        ('.. note:: Mind\n   the gap.', 'Note: Mind the gap.'),
        ('One.\n\n===  ===\na    b\n===  ===\n\nTwo.', 'One.\n\nTwo.'),
        ('One.\n\n```\ncode\n```\nTwo.', 'One.\n\nTwo.'),
        ('- a long\n  item\n- another', '- a long item\n- another'),
        ('One.\n\nCopyright 2020 Nobody.', 'One.'),
        ('One.\n\nExamples\n--------\n>>> 1\n1\n', 'One.'),
    ],
)
def test_clean(doc, expected):
    assert source.clean(doc) == expected


def test_first_sentence_is_not_ended_by_an_abbreviation():
    text = 'Give e.g. Ten apples to No. One. Then go.'
    assert text[: source.sentence_length(text)] == 'Give e.g. Ten apples to No. One.'


def test_installed_follows_requirements_and_skips_what_is_missing():
    found = source.installed(['no-such-distribution', 'pytest'])
    assert {'pytest', 'pluggy'} <= set(found)
    assert 'no-such-distribution' not in found
    assert list(found) == sorted(found)


def test_fingerprint_follows_versions(monkeypatch):
    assert dataset.fingerprint() == dataset.fingerprint()
    assert len(dataset.fingerprint()) == 12
    plainly = source.fingerprint.__wrapped__
    before = plainly()
    monkeypatch.setattr(source.platform, 'python_version', lambda: '3.99.0')
    assert plainly() != before
