"""Rows of packed documents hold every token once, and little padding."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.causal_rows import PackedRows
from bert_jax.data.rows import unpack

VOCABULARY = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(500))])


def pack(sizes, length, **settings):
    """Return the rows of documents of the given sizes, each of which repeats another token."""
    documents = [[np.full(n, 5 + i % 500)] for i, n in enumerate(sizes)]
    rows = PackedRows(length, **settings)(documents, VOCABULARY, np.random.default_rng(0))
    return [unpack(row) for row in rows]


def density(rows):
    return sum(row.length for row in rows) / sum(len(row.tokens) for row in rows)


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=30),
    st.integers(4, 70),
    st.sampled_from([None, 1, 2, 3]),
)
def test_rows_hold_every_token_once(sizes, length, max_texts):
    found: collections.Counter[int] = collections.Counter()
    for row in pack(sizes, length, max_texts=max_texts):
        texts = np.split(row.tokens[: row.length], 1 + np.flatnonzero(row.tokens == VOCABULARY.sep))
        assert len(texts.pop()) == 0, 'the row ends with a separator'
        assert len(texts) <= (max_texts or length)
        for text in texts:
            assert text[0] == VOCABULARY.cls
            assert len(np.unique(text[1:-1])) == 1, 'each text is from one document'
            found[int(text[1])] += len(text) - 2
    assert found == {5 + i: n for i, n in enumerate(sizes)}


@pytest.mark.parametrize('length', [128, 512])
@pytest.mark.parametrize('kind', ['articles', 'dialogues', 'two thirds of a row', 'short texts'])
def test_at_most_one_percent_of_the_rows_is_padding(kind, length):
    rng = np.random.default_rng(0)
    sizes = {
        'articles': rng.lognormal(np.log(516), 1, 400),  # like an encyclopedia: median 516 tokens, mean 870
        'dialogues': rng.normal(218, 60, 800).clip(20),
        'two thirds of a row': rng.normal(0.66 * length, 0.05 * length, 400),  # of which no two fit
        'short texts': rng.gamma(1.8, 8, 3000) + 3,
    }[kind]
    assert density(pack(sizes.astype(int), length)) >= 0.99
