"""Durations and cadences."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.cadence import Every, duration
from bert_jax.core.errors import UserError

COUNT = st.integers(1, 10**9)


@given(st.integers(0, 10**12))
def test_an_integer_is_steps(n):
    assert duration(n, total=7) == n


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10**6))
def test_a_fraction_is_of_the_run_and_rounds_to_the_nearest(share, total):
    steps = duration(share, total=total)
    assert type(steps) is int
    assert abs(steps - share * total) <= 0.5


def test_a_whole_float_is_steps():
    assert duration(1e3, total=7) == 1000


@given(st.integers(0, 10**6), st.sampled_from(['{} steps', '{} step', ' {}steps ', '{}  step']))
def test_steps_in_words(n, text):
    assert duration(text.format(n)) == n


@given(st.integers(0, 10**6), COUNT)
def test_examples_fill_their_last_batch(n, batch_size):
    assert duration(f'{n} examples', batch_size=batch_size) == math.ceil(n / batch_size)


@given(st.integers(1, 50), st.integers(1, 10**6), st.integers(1, 10**4))
def test_epochs_see_every_example(n, examples, batch_size):
    steps = duration(f'{n} epochs', examples=examples, batch_size=batch_size)
    assert (steps - 1) * batch_size < n * examples <= steps * batch_size


@pytest.mark.parametrize(
    ('text', 'steps'),
    [('0.5 epochs', 5), ('1 epoch', 10), ('5e2 examples', 50), ('1_000 examples', 100), ('11 examples', 2)]
    + [('1.1 epochs', 11), ('2.3 epochs', 23)],
)
def test_words_and_notations(text, steps):
    assert duration(text, examples=100, batch_size=10) == steps


@pytest.mark.parametrize(
    'value',
    [
        -1,
        -0.5,
        -3.0,
        1.5,
        math.nan,
        math.inf,
        True,
        None,
        '',
        '3',
        '3 days',
        'epochs',
        '-1 steps',
        '1.2.3 steps',
        '_ steps',
    ],
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(UserError, match='duration'):
        duration(value, total=100, batch_size=10, examples=100)


@pytest.mark.parametrize(
    ('text', 'units'), [('1 epoch', dict(batch_size=10)), ('1 epoch', dict(examples=10)), ('9 examples', {})]
)
def test_epochs_and_examples_need_their_units(text, units):
    with pytest.raises(UserError, match=text):
        duration(text, total=100, **units)


@given(st.integers(1, 50), st.integers(1, 300))
def test_every_counts_each_multiple_and_the_last_step_once(steps, total):
    due = [step for step in range(total + 1) if Every(steps, total)(step)]
    assert due == sorted({*range(steps, total + 1, steps), total})


def test_every_without_the_last_step():
    assert [step for step in range(11) if Every(4, 10, last=False)(step)] == [4, 8]


def test_every_zero_is_the_last_step_alone():
    assert [step for step in range(11) if Every(0, 10)(step)] == [10]
    assert not any(Every(0, 10, last=False)(step) for step in range(11))
