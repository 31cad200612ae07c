"""Tagged sentences: every word is in one row, its label at its first piece."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import tagging
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, unpack
from bert_jax.data.tagging import TaggedConfig

LABELS = ('O', 'B-A', 'I-A')


def records(*sentences):
    return [
        Record(f'example {i}', {'tokens': [w for w, _ in s], 'tags': [t for _, t in s]})
        for i, s in enumerate(sentences)
    ]


def rows(found, words, length=12, labelled=True):
    data = TaggedConfig('x.conll', length=length)
    return tagging.rows(found, data, LABELS, words, labelled)


def test_labels_stand_at_first_pieces(words):
    out, (sentence,) = rows(records([('w1', 'O'), ('xyz', 'B-A'), ('w2', 'I-A')]), words)
    assert out.shape == (1, 2, HEADER + 12)
    tokens = [words.token(t) for t in out[0, 0, HEADER : HEADER + 7]]
    assert tokens == ['[CLS]', 'w1', 'x', '##y', '##z', 'w2', '[SEP]']
    assert out[0, 1, HEADER:].tolist() == [0, 1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0]
    assert sentence.places.tolist() == [[0, 1], [0, 2], [0, 5]]
    assert out[0, 0, :HEADER].tolist() == out[0, 1, :HEADER].tolist() == [7, 7, 0, 0]


@given(
    st.lists(
        st.lists(st.sampled_from(['w5', 'x', 'xy', 'xyzyzyz', '\u200b', ' ']), max_size=30),
        min_size=1,
        max_size=4,
    )
)
def test_no_word_is_lost(words, sentences):
    if not any(sentences):
        return
    found = records(*([(w, LABELS[i % 3]) for i, w in enumerate(s)] for s in sentences))
    out, made = rows(found, words, length=8)
    assert [len(s.places) for s in made] == [len(s) for s in sentences]
    for sentence in made:
        if len(sentence.places):
            values = out[sentence.places[:, 0], 1, HEADER + sentence.places[:, 1]]
            assert values.tolist() == [i % 3 + 1 for i in range(len(sentence.words))]
            assert np.all(np.diff(sentence.places[:, 0]) >= 0)
    assert (out[:, 1, HEADER:] > 0).sum() == sum(map(len, sentences))
    assert all(unpack(row[0]).length <= 8 for row in out)


def test_a_word_without_pieces_is_unknown(words):
    out, _ = rows(records([('\u200b', 'B-A')]), words)
    assert out[0, 0, HEADER + 1] == words.unk


@pytest.mark.parametrize(
    ('tokens', 'tags', 'message'),
    [
        (['w1', 'w2'], ['O'], 'example 0 has 2 words but 1 labels'),
        (['w1'], ['B-B'], "example 0 has the label 'B-B'"),
        ([], [], 'has no words'),
    ],
)
def test_what_is_wrong_is_named(words, tokens, tags, message):
    with pytest.raises(UserError, match=message):
        rows([Record('example 0', {'tokens': tokens, 'tags': tags})], words)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'tokens': 'New York'}, "line 1, has 'New York' in the field 'tokens': make it a list"),
        ({'tokens': None}, "line 1, has 'None' in the field 'tokens'"),
        ({'tokens': ['a', None]}, 'line 1, has an entry that is nothing'),
        ({'tokens': []}, 'line 1, has no words'),
    ],
)
def test_words_that_are_none_are_named(words, fields, message):
    with pytest.raises(UserError, match=message):
        rows([Record('line 1,', fields)], words, labelled=False)
