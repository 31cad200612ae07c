"""Rows of tasks with the special tokens of T5: a text ends with </s> and begins with no token."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from bert_jax.data import question_answering, tagging
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.causal_rows import PackedRows
from bert_jax.data.prepare import TextConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, pack, unpack
from bert_jax.tasks import denoise

PIECES = [
    '<pad>',
    '</s>',
    '<unk>',
    '▁',
    *(f'▁w{i}' for i in range(60)),
    *(f'<extra_id_{i}>' for i in (2, 1, 0)),
]


@pytest.fixture(scope='module')
def t5():
    """A tokenizer of words, with three sentinels."""
    backend = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in PIECES], unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer_lib.Tokenizer(backend)


def words(*numbers):
    return np.array([PIECES.index(f'▁w{i}') for i in numbers], np.int32)


def test_special_tokens(t5):
    assert (t5.family, t5.prefix, t5.sep, t5.decoder_start, t5.mask) == ('t5', (), 1, 0, None)
    assert [t5.token(i) for i in t5.sentinels] == ['<extra_id_0>', '<extra_id_1>', '<extra_id_2>']


def test_batches_of_texts_and_pairs(t5):
    batch = t5(['w0 w1', 'w2'], ['w3', 'w4 w5'])
    assert batch['tokens'][:, :5].tolist() == [
        [*words(0, 1), 1, *words(3), 1],
        [*words(2), 1, *words(4, 5), 1],
    ]
    assert batch['valid'].sum(1).tolist() == [5, 5]
    assert t5(['w0 w1 w2'], max_length=3)['tokens'][0, :4].tolist() == [*words(0, 1), 1, 0]


def test_labels_of_words_are_at_their_first_tokens(t5):
    record = Record('line 1,', {'tokens': ['w0', 'w1', 'w2', 'w3'], 'tags': ['A', 'B', 'A', 'B']})
    data = tagging.TaggingConfig(label='tags', length=4)
    rows, _ = tagging.make_rows([record], data, ['A', 'B'], t5, True)
    assert rows[:, 0, HEADER:].tolist() == [[*words(0, 1, 2), 1], [*words(3), 1, 0, 0]]
    assert rows[:, 1, HEADER:].tolist() == [[1, 2, 1, 0], [2, 0, 0, 0]]


def test_answers_are_labeled_after_the_question(t5):
    answers = {'text': ['w3'], 'answer_start': [3]}
    record = Record('line 1,', {'id': '0', 'question': 'w0 w1', 'context': 'w2 w3 w4', 'answers': answers})
    data = question_answering.QuestionConfig(length=10, max_question_length=4, stride=2)
    rows, _ = question_answering.make_rows([record], data, t5, True)
    row = unpack(rows[0])
    assert row.tokens[: row.length].tolist() == [*words(0, 1), 1, *words(2, 3, 4), 1]
    assert divmod(row.label, question_answering.SPAN_BASE) == (4, 4)


def test_cut_texts_of_packed_rows_begin_with_no_token(t5):
    documents = [[words(*range(20))], [words(*range(20, 33))]]
    rows = [unpack(row) for row in PackedRows(12)(documents, t5, np.random.default_rng(0))]
    tokens = np.concatenate([row.tokens[: row.length] for row in rows])
    assert sorted(tokens[tokens != 1]) == sorted(words(*range(33)))
    assert all(row.tokens[row.length - 1] == 1 for row in rows)
    assert len(rows) == 4, 'the second document fills the row of the rest of the first'


@pytest.mark.parametrize('pack_documents', [False, True])
def test_spans_are_replaced_by_the_sentinels_of_the_tokenizer(t5, pack_documents):
    config = denoise.Config(noise=('spans',), rate=0.3, pack_documents=pack_documents)
    assert denoise.Task.num_extra_tokens(config, t5) == 0
    task = denoise.Task(config, TextConfig(), t5)
    text = words(*range(15))
    batch = task.example(pack(text, None, 0, 16, t5), np.random.default_rng(0))
    source = batch['tokens'][batch['valid'] > 0].tolist()
    labels = batch['labels'][batch['target_valid'] > 0].tolist()
    assert source[-1] == labels[-1] == 1
    assert batch['targets'][0] == t5.decoder_start
    assert batch['targets'][1 : len(labels)].tolist() == labels[:-1]
    used = [i for i in source if i in t5.sentinels]
    assert used == [*t5.sentinels[: len(used)]]
    spans = {}
    for token in labels[:-1]:
        if token in t5.sentinels:
            spans[token] = []
        else:
            [*spans.values()][-1].append(token)
    restored = [x for token in source[:-1] for x in spans.get(token, [token])]
    assert restored == text.tolist()
