"""Calling a tokenizer makes the inputs of a model from plain texts."""

import re

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.rows import pack, unpack


@pytest.fixture
def tokenizer():
    return tokenizer_lib.from_words('a big dog sees the cat .')


def test_rows_are_those_of_training(tokenizer):
    texts, pairs = ['a dog', 'the big cat'], ['sees a cat .', 'a']
    batch = tokenizer(texts, pairs)
    for i, (a, b) in enumerate(zip(texts, pairs, strict=True)):
        row = unpack(pack(*tokenizer.encode([a, b]), 0, 64, tokenizer)).inputs()
        assert batch.keys() == row.keys()
        for name, value in row.items():
            np.testing.assert_array_equal(batch[name][i], value)
            assert batch[name].dtype == value.dtype


def test_one_text_is_a_batch_of_one_row(tokenizer):
    batch = tokenizer('a [MASK] dog')
    assert {name: array.shape for name, array in batch.items()} == dict.fromkeys(
        ('tokens', 'segments', 'valid'), (1, 64)
    )
    real = batch['tokens'][batch['valid']]
    assert [tokenizer.token(i) for i in real] == ['[CLS]', 'a', '[MASK]', 'dog', '[SEP]']
    for name, array in tokenizer(text for text in ['a [MASK] dog']).items():
        np.testing.assert_array_equal(array, batch[name])


@pytest.mark.parametrize(('words', 'length'), [(1, 64), (62, 64), (63, 128), (200, 256), (298, 300)])
def test_lengths_are_powers_of_two_up_to_the_longest_row(tokenizer, words, length):
    tokenizer.longest_row = 300
    batch = tokenizer(['dog ' * words, 'a'])
    assert batch['tokens'].shape == (2, length)
    assert batch['valid'].sum(1).tolist() == [words + 2, 3]


def test_long_texts_are_cut_only_on_request(tokenizer):
    tokenizer.longest_row = 80
    with pytest.raises(UserError, match=r'texts\[1\] has 92 tokens, .* at most 80\. Pass max_length=80'):
        tokenizer(['a', 'dog ' * 90])
    assert tokenizer(['a', 'dog ' * 90], max_length=80)['valid'].sum(1).tolist() == [3, 80]
    pair = tokenizer('dog ' * 90, 'a cat', max_length=10)
    assert pair['valid'].sum() == 10
    assert pair['segments'].sum() == 3
    with pytest.raises(UserError, match='max_length=4 leaves no room .* Pass 5 or more'):
        tokenizer('a', 'dog', max_length=4)


def test_a_causal_model_gets_no_special_tokens(tokenizer):
    tokenizer.adds_special_tokens = False
    batch = tokenizer(['a dog', ''])
    assert batch['tokens'][batch['valid']].tolist() == tokenizer.encode(['a dog'])[0].tolist()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((7,), 'texts is 7. Pass a string or a list of strings.'),
        (([],), 'texts is empty'),
        ((['a', None],), 'texts[1] is of type NoneType'),
        (([['a', 'dog']],), 'texts[0] is of type list'),
        (([('a', 'dog')],), 'as another: tokenizer(texts, pairs)'),
        (
            (['a', 'dog'], ['a']),
            'texts has the length 2, but pairs has 1. Pass one second text for each text.',
        ),
        (('a', [1]), 'pairs[0] is of type int'),
    ],
)
def test_arguments_that_are_not_texts_are_rejected(tokenizer, arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        tokenizer(*arguments)
