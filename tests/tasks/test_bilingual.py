"""Masked LM of a language and its double."""

import jax
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.modeling import bert
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import bilingual

LENGTH = 24


def task(words, **settings):
    return bilingual.Task(bilingual.Config(next='none', **settings), TextConfig(length=LENGTH), words)


def packed(words, n=12, start=10):
    return rows_lib.pack(np.arange(start, start + n), None, 0, LENGTH, words)


def model_config(words, **settings):
    shape = dict(size='tiny', width=16, heads=2, mlp=32, dropout=0.0, attention_dropout=0.0)
    return bert.Config(vocab_size=2 * len(words), **shape | settings)


@pytest.mark.parametrize('special', ['shared', 'own'])
@pytest.mark.parametrize('order', ['same', 'inverted'])
def test_the_fake_example_is_the_double_of_the_real_one(words, special, order):
    made = task(words, special=special, order=order)
    row = packed(words)
    fake = made.in_language(row, np.random.default_rng(1), True)
    turned = row.copy()
    if order == 'inverted':
        turned[rows_lib.HEADER + 1 : rows_lib.HEADER + 13] = row[rows_lib.HEADER + 1 : rows_lib.HEADER + 13][
            ::-1
        ]
    real = made.in_language(turned, np.random.default_rng(1), False)
    assert (fake.pop('source'), real.pop('source')) == (1, 0)
    for key in ('tokens', 'labels'):
        np.testing.assert_array_equal(fake.pop(key), made.disguise.ids(real.pop(key)))
    assert fake.keys() == real.keys()
    assert all(np.array_equal(fake[k], real[k]) for k in fake)


def test_paired_rows_are_read_in_both_languages_and_others_in_one(words):
    rows = [packed(words, n, start) for n in (11, 12) for start in (10, 11)]
    for paired in (True, False):
        made = task(words, paired=paired)
        found = [{int(made.example(r, np.random.default_rng(i))['source']) for i in range(20)} for r in rows]
        assert (
            found == [{0, 1}] * 4
            if paired
            else {frozenset(f) for f in found}
            == {
                frozenset({0}),
                frozenset({1}),
            }
        )


def test_losses_are_reported_of_each_language(words):
    made = task(words)
    rng = np.random.default_rng(0)
    batch = stack([made.in_language(packed(words), rng, fake) for fake in (True, False, True)])
    model = made.module(model_config(words), Rngs(0))
    result = made.loss(model, batch, None)
    real, fake = (result.metrics[f'mlm_loss/{name}'] for name in bilingual.LANGUAGES)
    assert (float(real.weight), float(fake.weight)) == (2, 4)
    total = result.terms['mlm_loss']
    assert float(real.total + fake.total) == pytest.approx(float(total.total), rel=1e-5)


def test_positions_of_ones_own_are_others(words):
    made = task(words, positions='own')
    model = made.module(model_config(words, positions=2 * LENGTH), Rngs(0))
    row = packed(words)
    real, fake = (stack([made.in_language(row, np.random.default_rng(0), f)]) for f in (False, True))
    moved = {**real, 'source': fake['source']}
    as_real, as_fake = (made.encoded(model, b).hidden_states[0] for b in (real, moved))
    table = model.bert.positions[...]
    normalise = jax.vmap(model.bert.norm)
    words_and_segments = model.bert.words[...][real['tokens'][0]] + model.bert.segments[...][0]
    np.testing.assert_allclose(as_real[0], normalise(words_and_segments + table[:LENGTH]), atol=1e-5)
    np.testing.assert_allclose(as_fake[0], normalise(words_and_segments + table[LENGTH:]), atol=1e-5)


def test_positions_of_ones_own_need_room(words):
    made = task(words, positions='own')
    with pytest.raises(UserError, match=r'model\.rotary=0'):
        made.module(model_config(words, rotary=1e4), Rngs(0))
    model = made.module(model_config(words, positions=2 * LENGTH - 1), Rngs(0))
    batch = stack([made.in_language(packed(words), np.random.default_rng(0), True)])
    with pytest.raises(UserError, match=r'model\.positions=48'):
        made.encoded(model, batch)
