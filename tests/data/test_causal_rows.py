"""Joined rows lose no token, and every token is assigned to its document."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.causal_rows import JoinedRows, document_numbers

VOCABULARY = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(100))])
DOCUMENTS = st.lists(
    st.lists(st.lists(st.integers(5, 99), min_size=1, max_size=9), min_size=1, max_size=4), max_size=6
)


@given(DOCUMENTS, st.integers(2, 12))
def test_concatenated_rows_are_the_documents(documents, length):
    arrays = [[np.array(s, np.int32) for s in d] for d in documents]
    rows = [rows_lib.unpack(r) for r in JoinedRows(length)(arrays, VOCABULARY, np.random.default_rng(0))]
    joined = [int(t) for r in rows for t in r.tokens[: r.length]]
    assert joined == [t for d in documents for t in [*(t for s in d for t in s), VOCABULARY.sep]]
    assert all(len(r.tokens) == length for r in rows)
    assert all(r.length == length for r in rows[:-1])
    assert all((r.tokens[r.length :] == VOCABULARY.pad).all() for r in rows)


def test_separator_belongs_to_the_document_it_ends():
    sep = VOCABULARY.sep
    tokens = np.array([7, sep, 8, 9, sep, sep, 7, 0, 0])
    assert document_numbers(tokens, 7, sep).tolist() == [1, 1, 2, 2, 2, 3, 4, 0, 0]


def test_length_1_is_rejected():
    with pytest.raises(UserError, match='data.length=1 must be at least 2'):
        JoinedRows(1)
