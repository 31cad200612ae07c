"""Segmentation: words of scripts without spaces between them, and how rows mark them."""

import importlib.metadata
import sys
import types

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import prepare as prepare_lib
from bert_jax.data import rows as rows_lib
from bert_jax.data import scripts, segmentation, tokenizer_training
from bert_jax.data import tokenizer as tokenizer_lib

TEXT = '北京大学在北京。The windows open.'


@pytest.fixture
def words(tmp_path):
    """File of words, in the format of the dictionaries of jieba."""
    path = tmp_path / 'words.txt'
    path.write_text('北京 34488 ns\n北京大学 2053 nt\n大学生 1 n\n在 1 p\n\n')
    return str(path)


@pytest.fixture(scope='module')
def wordpiece():
    entries = [*tokenizer_lib.SPECIAL, *'北京大学在。', 'the', 'window', '##s', 'open', '.']
    return tokenizer_lib.from_vocab(entries)


@pytest.fixture(scope='module')
def byte_level():
    config = tokenizer_lib.TokenizerConfig(kind='bpe', vocab_size=261)
    return tokenizer_training.train(['text'], config)


def split(segmenter, tokenizer, text):
    """Split a text where a token begins a word."""
    ((ids, offsets),) = tokenizer.encode_with_offsets([text])
    continues = segmenter.continues_word(text, ids, offsets, tokenizer)
    return [text[offsets[i, 0] :] for i in np.flatnonzero(~continues)]


def lengths(suffixes, text):
    starts = [len(text) - len(suffix) for suffix in suffixes]
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


@pytest.mark.parametrize(
    ('text', 'separates'),
    [
        (TEXT, True),
        ('他生于1990年。', False),
        ('カタカナとひらがな', False),
        ('ภาษาไทย', False),
        ('한국어 문장', True),
        ('12', True),
    ],
)
def test_scripts_that_separate_words(text, separates):
    assert scripts.separates_words([text]) == separates


def test_longest_listed_word_is_taken(words):
    assert segmentation.make(words).word_ends('北京大学生在北京') == [4, 5, 6, 8]


def test_tokens_of_wordpiece_continue_words(words, wordpiece):
    found = split(segmentation.make(words), wordpiece, TEXT)
    expected = ['北京大学', '在', '北京', '。', 'The ', 'windows ', 'open', '.']
    assert lengths(found, TEXT) == expected


def test_tokens_of_byte_level_bpe_continue_words(words, byte_level):
    found = split(segmentation.make(words), byte_level, TEXT)
    assert lengths(found, TEXT) == ['北京大学', '在', '北京', '。', 'The', ' windows', ' open', '.']


def test_other_words_give_another_version(words, tmp_path):
    (tmp_path / 'more.txt').write_text('北京\n上海\n')
    assert segmentation.make(words).version != segmentation.make(f'{tmp_path}/more.txt').version


def test_jieba_is_used(monkeypatch, wordpiece):
    fake = types.ModuleType('jieba')
    fake.setLogLevel = lambda level: None
    fake.tokenize = lambda text: [('北京大学', 0, 4), ('在', 4, 5), ('北京', 5, 7)]
    monkeypatch.setitem(sys.modules, 'jieba', fake)
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: '1.0')
    segmentation._import_jieba.cache_clear()
    segmenter = segmentation.make('jieba')
    assert lengths(split(segmenter, wordpiece, TEXT[:7]), TEXT[:7]) == ['北京大学', '在', '北京']
    segmentation._import_jieba.cache_clear()


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('jieba', 'needs the package jieba. Run `pip install jieba`'),
        ('missing.txt', "'missing.txt' is not a file"),
        ('single.txt', 'no word of two or more characters'),
        ('gbk.txt', "'gbk.txt' is not UTF-8 text"),
    ],
)
def test_segmenter_that_cannot_be_used_is_an_error(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, 'jieba', None)
    (tmp_path / 'single.txt').write_text('北\n京\n')
    (tmp_path / 'gbk.txt').write_text('北京\n', encoding='gbk')
    with pytest.raises(UserError, match=message):
        segmentation.make(source)


def test_prepared_rows_mark_words(words, wordpiece, tmp_path):
    (tmp_path / 'zh.txt').write_text(f'{TEXT}\n{TEXT}\n')
    text = prepare_lib.TextConfig((f'{tmp_path}/zh.txt',), validation_fraction=0, workers=1)
    plain, marked = (
        rows_lib.SegmentRows(64, 'none', short_sequence_rate=0, segmenter=segmenter)
        for segmenter in (None, segmentation.make(words))
    )
    prepare_lib.prepare(text, plain, wordpiece, tmp_path / 'plain')
    prepare_lib.prepare(text, marked, wordpiece, tmp_path / 'marked')
    (row,), (other,) = (rows_lib.Rows(tmp_path / name, 'train') for name in ('marked', 'plain'))
    continues, tokens = np.divmod(rows_lib.unpack(row).tokens, len(wordpiece))
    assert np.array_equal(tokens, rows_lib.unpack(other).tokens)
    sentence = [0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert continues.tolist()[:28] == [0, *sentence, *sentence, 0]


def test_rows_without_a_segmenter_are_not_invalidated(wordpiece, tmp_path):
    (tmp_path / 'en.txt').write_text('the windows open.\n')
    text = prepare_lib.TextConfig((f'{tmp_path}/en.txt',), validation_fraction=0, workers=1)
    manifest = prepare_lib.prepare(text, rows_lib.SegmentRows(64), wordpiece, tmp_path / 'rows')
    assert 'segmenter' not in manifest['settings']['row_maker'][1]
