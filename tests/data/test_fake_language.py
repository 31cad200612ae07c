"""The fake language maps tokens one to one, and inverting its order twice restores it."""

import copy

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data import rows as rows_lib
from bert_jax.data.fake_language import FakeLanguage, FakeLanguageTokenizer


def test_every_token_maps_to_a_different_fake_token(word_tokenizer):
    ids = np.arange(len(word_tokenizer))
    for shared in (True, False):
        fake_ids = FakeLanguage(word_tokenizer, shared).map_ids(ids)
        assert len({*fake_ids.tolist()}) == len(word_tokenizer)
        unchanged = ids[fake_ids == ids].tolist()
        special = [
            word_tokenizer.pad,
            word_tokenizer.unk,
            word_tokenizer.cls,
            word_tokenizer.sep,
            word_tokenizer.mask,
        ]
        assert unchanged == (sorted(special) if shared else [word_tokenizer.pad])
        assert {*fake_ids.tolist()} & {*ids.tolist()} == {*unchanged}


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 2))
def test_inversion_reverses_each_text_and_twice_restores_it(word_tokenizer, n, m, num_separators):
    word_tokenizer = copy.copy(word_tokenizer)
    word_tokenizer.separators = (word_tokenizer.sep,) * num_separators
    a, b = np.arange(10, 10 + n), np.arange(30, 30 + m) if m else None
    row = rows_lib.unpack(rows_lib.pack(a, b, 0, 32, word_tokenizer))
    positions = FakeLanguage(word_tokenizer, inverted=True).source_positions(row)
    assert sorted(positions) == [*range(32)]
    np.testing.assert_array_equal(positions[positions], np.arange(32))
    reversed_row = rows_lib.pack(a[::-1], None if b is None else b[::-1], 0, 32, word_tokenizer)
    np.testing.assert_array_equal(row.tokens[positions], rows_lib.unpack(reversed_row).tokens)
    np.testing.assert_array_equal(FakeLanguage(word_tokenizer).source_positions(row), np.arange(32))


def test_tokenizer_encodes_texts_with_fake_ids(word_tokenizer):
    texts = ['w7 w8', 'xy w9']
    for shared in (True, False):
        tokenizer = FakeLanguageTokenizer(word_tokenizer, shared)
        language = FakeLanguage(word_tokenizer, shared)
        for real, fake in zip(word_tokenizer.encode(texts), tokenizer.encode(texts), strict=True):
            np.testing.assert_array_equal(language.map_ids(real), fake)
        (real, offsets), (fake, fake_offsets) = (
            t.encode_with_offsets(texts[1:])[0] for t in (word_tokenizer, tokenizer)
        )
        np.testing.assert_array_equal(language.map_ids(real), fake)
        np.testing.assert_array_equal(offsets, fake_offsets)
        real_row, fake_row = (
            rows_lib.pack(t.encode(['w7'])[0], t.encode(['w8'])[0], 0, 9, t)[rows_lib.HEADER :]
            for t in (word_tokenizer, tokenizer)
        )
        np.testing.assert_array_equal(language.map_ids(real_row), fake_row)
