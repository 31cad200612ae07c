"""Tagged sentences: each word is in one row, with its label at its first subword."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import labeled, records, tagging
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, unpack
from bert_jax.data.tagging import TaggingConfig

LABELS = ('O', 'B-A', 'I-A')


def make_records(*sentences):
    return [
        Record(f'example {i}', {'tokens': [w for w, _ in s], 'tags': [t for _, t in s]})
        for i, s in enumerate(sentences)
    ]


def make_rows(records, word_tokenizer, length=12, with_labels=True):
    data = TaggingConfig('x.conll', length=length)
    return tagging.make_rows(records, data, LABELS, word_tokenizer, with_labels)


def test_labels_are_at_first_subwords(word_tokenizer):
    out, (sentence,) = make_rows(make_records([('w1', 'O'), ('xyz', 'B-A'), ('w2', 'I-A')]), word_tokenizer)
    assert out.shape == (1, 2, HEADER + 12)
    tokens = [word_tokenizer.token(t) for t in out[0, 0, HEADER : HEADER + 7]]
    assert tokens == ['[CLS]', 'w1', 'x', '##y', '##z', 'w2', '[SEP]']
    assert out[0, 1, HEADER:].tolist() == [0, 1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0]
    assert sentence.positions.tolist() == [[0, 1], [0, 2], [0, 5]]
    assert out[0, 0, :HEADER].tolist() == out[0, 1, :HEADER].tolist() == [7, 7, 0, 0]


@given(
    st.lists(
        st.lists(st.sampled_from(['w5', 'x', 'xy', 'xyzyzyz', '\u200b', ' ']), max_size=30),
        min_size=1,
        max_size=4,
    )
)
def test_every_word_is_in_one_row(word_tokenizer, sentences):
    if not any(sentences):
        return
    records = make_records(*([(w, LABELS[i % 3]) for i, w in enumerate(s)] for s in sentences))
    out, result = make_rows(records, word_tokenizer, length=8)
    assert [len(s.positions) for s in result] == [len(s) for s in sentences]
    for sentence in result:
        if len(sentence.positions):
            values = out[sentence.positions[:, 0], 1, HEADER + sentence.positions[:, 1]]
            assert values.tolist() == [i % 3 + 1 for i in range(len(sentence.words))]
            assert np.all(np.diff(sentence.positions[:, 0]) >= 0)
    assert (out[:, 1, HEADER:] > 0).sum() == sum(map(len, sentences))
    assert all(unpack(row[0]).length <= 8 for row in out)


def test_word_without_subwords_becomes_unk(word_tokenizer):
    out, _ = make_rows(make_records([('\u200b', 'B-A')]), word_tokenizer)
    assert out[0, 0, HEADER + 1] == word_tokenizer.unk


@pytest.mark.parametrize(
    ('tokens', 'tags', 'message'),
    [
        (['w1', 'w2'], ['O'], "example 0 has 2 words in 'tokens' but 1 labels in 'tags'"),
        (['w1'], ['B-B'], "example 0 has the unknown label 'B-B'"),
        ([], [], 'has no words'),
    ],
)
def test_invalid_labels_raise(word_tokenizer, tokens, tags, message):
    with pytest.raises(UserError, match=message):
        make_rows([Record('example 0', {'tokens': tokens, 'tags': tags})], word_tokenizer)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (
            {'tokens': '["New", "York"]'},
            "line 1, has the text '.*' in the field 'tokens', where a list of words belongs",
        ),
        ({'tokens': None}, "line 1, has null in the field 'tokens', where a list of words belongs"),
        ({'tokens': ['a', None]}, "line 1, has null in the list 'tokens', where text belongs"),
        ({'tokens': ['a', 3]}, "line 1, has the number 3 in the list 'tokens', where text belongs"),
        ({'tokens': []}, 'line 1, has no words'),
    ],
)
def test_invalid_words_raise(word_tokenizer, fields, message):
    with pytest.raises(UserError, match=message):
        make_rows([Record('line 1,', fields)], word_tokenizer, with_labels=False)


@pytest.mark.parametrize(
    ('tags', 'expected'),
    [
        ('B-X I-X O', 'B-X I-X O'),  # IOB2
        ('I-X I-X B-X I-Y O I-Y', 'B-X I-X B-X B-Y O B-Y'),  # IOB1
        ('B-X E-X O S-Y B-X I-X E-X', 'B-X I-X O B-Y B-X I-X I-X'),  # BIOES
        ('B-X L-X O U-Y', 'B-X I-X O B-Y'),  # BILOU
        ('I-X NN', 'I-X NN'),  # parts of speech
    ],
)
def test_entity_tags_become_iob2(tags, expected):
    assert labeled.read_tags(Record('a', {'tags': tags.split()}), 'tags') == expected.split()


def test_scheme_of_the_model_is_kept():
    tags = ['B-X', 'E-X', 'O', 'S-Y']
    assert labeled.read_tags(Record('a', {'tags': tags}), 'tags', ('O', 'S-Y', 'B-X', 'E-X')) == tags


def test_bioes_tags_are_learned_as_iob2(tmp_path, word_tokenizer):
    (tmp_path / 'train.conll').write_text('w1 B-A\nw2 E-A\nw3 O\nw4 S-A\n')
    data = TaggingConfig(f'{tmp_path}/{{split}}.conll', length=12)
    names = labeled.label_names(data, per_token=True)
    assert names == ('B-A', 'I-A', 'O')
    out, _ = tagging.make_rows(records.read(data.source, 'train'), data, names, word_tokenizer, True)
    assert out[0, 1, HEADER : HEADER + 6].tolist() == [0, 1, 2, 3, 1, 0]


def test_numbers_of_tags_have_the_names_of_the_config(word_tokenizer):
    data = TaggingConfig('x.jsonl', length=12, label_names=LABELS)
    found = [Record('a', {'tokens': ['w1', 'w2', 'w3'], 'tags': [1, 2, '0']})]
    out, _ = tagging.make_rows(found, data, ('B-A', 'I-A', 'O'), word_tokenizer, True)
    assert out[0, 1, HEADER : HEADER + 5].tolist() == [0, 1, 2, 3, 0]


def test_unlabeled_text_is_split_at_spaces(word_tokenizer):
    _, (sentence,) = make_rows([Record('a', {'tokens': 'w1  xyz w2'})], word_tokenizer, with_labels=False)
    assert sentence.words == ['w1', 'xyz', 'w2']
    assert len(sentence.positions) == 3
    for fields, message in (
        ({'tokens': ' '}, 'has no words'),
        ({'text': 'w1'}, 'Set data.tokens'),
    ):
        with pytest.raises(UserError, match=message):
            make_rows([Record('a', fields)], word_tokenizer, with_labels=False)
    with pytest.raises(UserError, match='where a list of words belongs'):
        make_rows([Record('a', {'tokens': 'w1 w2', 'tags': 'O O'})], word_tokenizer)


def test_one_sentence_without_labels_is_named(word_tokenizer):
    records = [Record('line 1,', {'tokens': ['w1'], 'tags': ['O']}), Record('line 2,', {'tokens': ['w1']})]
    with pytest.raises(UserError, match="line 2, has no label in the field 'tags', unlike those before it"):
        make_rows(records, word_tokenizer)
