"""Lengths of rows: whatever the special tokens, lengths and strides are, all text is covered and no row is too long."""

import types

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import causal_rows, labeled, multiple_choice, question_answering, rows
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.records import Record
from bert_jax.evals import language_model

families = st.sampled_from([*tokenizer_lib._FAMILIES])  # RoBERTa has two separators, GPT-2 one special token


@pytest.fixture(scope='module')
def tokenizers():
    """Byte-level tokenizers by family, in which each letter is a token."""
    made = {}
    for family, special in tokenizer_lib._FAMILIES.items():
        entries = dict.fromkeys([*special, *'abcdefghĠ'])
        made[family] = tokenizer_lib.from_merges({t: i for i, t in enumerate(entries)}, [])
    return made


def build(make):
    """Return what `make` makes; None if it refuses the settings."""
    try:
        return make()
    except UserError:
        return None


@example(family='roberta', length=8, stride=1, max_question_length=4, context_length=5, question_length=6)
@given(
    families,
    st.integers(4, 16),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(1, 14),
)
def test_windows_of_every_question_cover_its_context(
    tokenizers, family, length, stride, max_question_length, context_length, question_length
):
    tokenizer = tokenizers[family]
    fields = {'context': 'a' * context_length, 'question': 'b' * question_length}
    settings = {'length': length, 'stride': stride, 'max_question_length': max_question_length}
    data = build(lambda: question_answering.QuestionConfig('x.json', **settings))
    if data is None:
        return
    made = build(lambda: question_answering.make_rows([Record('', fields)], data, tokenizer, False))
    if made is None:
        assert length < 4 + len(tokenizer.separators)
        return
    found, (question,) = made
    count = np.zeros(context_length, int)
    for row, window in zip(map(rows.unpack, found), question.windows, strict=True):
        assert row.length <= length
        context = row.tokens[window.row_offset : window.row_offset + window.stop - window.start]
        assert tokenizer.decode(context) == 'a' * (window.stop - window.start)
        count[window.start : window.stop] += window.is_max_context
    assert (count == 1).all()


@given(families, st.integers(5, 16), st.sampled_from(['random', 'swap', 'none']), st.integers(0, 9))
def test_segments_fit_into_rows_of_every_length(tokenizers, family, length, objective, seed):
    tokenizer = tokenizers[family]
    documents = [tokenizer.encode(['a' * n for n in sizes]) for sizes in ((1, 30, 2), (3,), (4, 4, 4))]
    rng = np.random.default_rng(seed)
    made = build(
        lambda: [*rows.SegmentRows(length, objective, short_sequence_rate=0.5)(documents, tokenizer, rng)]
    )
    if made is None:
        assert length < 4 + len(tokenizer.separators)
        assert objective != 'none'
        return
    assert made
    assert all(rows.unpack(row).length <= length for row in made)


@given(families, st.integers(4, 12), st.integers(0, 20), st.integers(0, 20))
def test_pairs_fit_into_rows_of_every_length(tokenizers, family, length, first, second):
    tokenizer = tokenizers[family]
    record = Record('', {'text': 'a' * first, 'other': 'b' * second, 'endings': ['b', 'c' * second]})
    pair = labeled.LabeledConfig('x.csv', length=length, text_pair='other')
    choice = multiple_choice.ChoiceConfig('x.csv', length=length, text='text', endings=('endings',))
    pairs = build(lambda: labeled.make_rows([record], [0], pair, tokenizer))
    choices = build(lambda: multiple_choice.make_rows([record], choice, tokenizer, False)[0])
    if pairs is None or choices is None:
        assert pairs is choices is None
        assert length < 4 + len(tokenizer.separators)
        return
    assert all(rows.unpack(row).length <= length for row in (*pairs, *choices))


@given(families, st.integers(2, 16), st.lists(st.integers(0, 40), max_size=4), st.booleans())
def test_rows_of_running_text_contain_every_token_once(tokenizers, family, length, sizes, is_joined):
    tokenizer = tokenizers[family]
    documents = [
        [ids] for ids in tokenizer.encode(['abcdefgh'[i] * n for i, n in enumerate(sizes)]) if len(ids)
    ]
    maker = build(lambda: causal_rows.JoinedRows(length) if is_joined else causal_rows.DocumentRows(length))
    if maker is None:
        assert length < 4
        return
    made = [rows.unpack(row) for row in maker(documents, tokenizer, np.random.default_rng(0))]
    assert all(row.length <= length for row in made)
    tokens = np.concatenate([[], *(row.tokens[: row.length] for row in made)])
    text = np.concatenate([[], *(ids for (ids,) in documents)])
    assert tokens[np.isin(tokens, tokenizer.ordinary_ids)].tolist() == text.tolist()
    if is_joined:  # one separator for each document
        assert len(tokens) == len(text) + len(documents)


@given(families, st.integers(2, 16), st.integers(0, 40), st.integers(1, 20))
def test_long_prompts_keep_their_end_and_the_whole_answer(
    tokenizers, family, length, context_size, answer_size
):
    tokenizer, answer = tokenizers[family], 'b' * answer_size
    continuations = [('line 1,', 'a' * context_size, answer)]
    trained = types.SimpleNamespace(tokenizer=tokenizer, is_causal=True)
    made = build(lambda: language_model.make_queries(continuations, trained, length))
    if made is None:
        assert answer_size >= length
        return
    ((tokens, first),) = made
    assert len(tokens) == min(length, 1 + context_size + answer_size)
    assert first >= 1
    assert tokenizer.decode(tokens[first:]) == answer
    assert tokenizer.decode(tokens[:first]).strip('a') in ('', '[SEP]', '</s>', '<|endoftext|>')
