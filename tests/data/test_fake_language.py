"""A fake language: every token has one double, and order can be inverted and set right again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data import rows as rows_lib
from bert_jax.data.fake_language import DisguisedTokenizer, disguise


def test_every_token_has_a_double_of_its_own(words):
    ids = np.arange(len(words))
    for shared in (True, False):
        doubles = disguise(words, shared).ids(ids)
        assert len({*doubles.tolist()}) == len(words)
        same = ids[doubles == ids].tolist()
        special = [words.pad, words.unk, words.cls, words.sep, words.mask]
        assert same == (sorted(special) if shared else [words.pad])
        assert {*doubles.tolist()} & {*ids.tolist()} == {*same}


@given(st.integers(1, 9), st.integers(0, 9))
def test_inverting_turns_each_text_round_and_twice_is_nothing(words, n, m):
    a, b = np.arange(10, 10 + n), np.arange(30, 30 + m) if m else None
    row = rows_lib.unpack(rows_lib.pack(a, b, 0, 32, words))
    order = disguise(words, inverted=True).order(row)
    assert sorted(order) == [*range(32)]
    np.testing.assert_array_equal(order[order], np.arange(32))
    turned = rows_lib.pack(a[::-1], None if b is None else b[::-1], 0, 32, words)
    np.testing.assert_array_equal(row.tokens[order], rows_lib.unpack(turned).tokens)
    np.testing.assert_array_equal(disguise(words).order(row), np.arange(32))


def test_texts_read_in_the_fake_language_are_the_doubles_of_real_ones(words):
    texts = ['w7 w8', 'xy w9']
    for shared in (True, False):
        made, d = DisguisedTokenizer(words, shared), disguise(words, shared)
        for a, b in zip(words.encode(texts), made.encode(texts), strict=True):
            np.testing.assert_array_equal(d.ids(a), b)
        (ids, places), (doubles, same) = (t.encode_with_offsets(texts[1:])[0] for t in (words, made))
        np.testing.assert_array_equal(d.ids(ids), doubles)
        np.testing.assert_array_equal(places, same)
        row, double = (
            rows_lib.pack(t.encode(['w7'])[0], t.encode(['w8'])[0], 0, 9, t)[rows_lib.HEADER :]
            for t in (words, made)
        )
        np.testing.assert_array_equal(d.ids(row), double)
