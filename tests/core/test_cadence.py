"""Conversion of durations to steps, and periodic predicates."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.cadence import Every, duration_to_steps, make_every
from bert_jax.core.errors import UserError

COUNT = st.integers(1, 10**9)


@given(st.integers(0, 10**12))
def test_integer_is_number_of_steps(n):
    assert duration_to_steps(n, total=7) == n


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10**6))
def test_fraction_of_run_is_rounded_to_nearest_step(fraction, total):
    steps = duration_to_steps(fraction, total=total)
    assert type(steps) is int
    assert abs(steps - fraction * total) <= 0.5


def test_integral_float_is_number_of_steps():
    assert duration_to_steps(1e3, total=7) == 1000


@given(st.integers(0, 10**6), st.sampled_from(['{} steps', '{} step', ' {}steps ', '{}  step']))
def test_string_with_steps(n, text):
    assert duration_to_steps(text.format(n)) == n


@given(st.integers(0, 10**6), COUNT)
def test_examples_are_rounded_up_to_whole_batches(n, batch_size):
    assert duration_to_steps(f'{n} examples', batch_size=batch_size) == math.ceil(n / batch_size)


@given(st.integers(1, 50), st.integers(1, 10**6), st.integers(1, 10**4))
def test_epochs_cover_all_examples(n, examples, batch_size):
    steps = duration_to_steps(f'{n} epochs', examples=examples, batch_size=batch_size)
    assert (steps - 1) * batch_size < n * examples <= steps * batch_size


@pytest.mark.parametrize(
    ('text', 'steps'),
    [
        ('1.5e1 steps', 15),
        ('2.0 steps', 2),
        ('0.5 epochs', 5),
        ('1 epoch', 10),
        ('5e2 examples', 50),
        ('1_000 examples', 100),
        ('11 examples', 2),
    ]
    + [('1.1 epochs', 11), ('2.3 epochs', 23)],
)
def test_number_notations(text, steps):
    assert duration_to_steps(text, examples=100, batch_size=10) == steps


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
        '1.5 steps',
        '0.5 step',
        'epochs',
        '-1 steps',
        '1.2.3 steps',
        '_ steps',
    ],
)
def test_invalid_duration_is_rejected(value):
    with pytest.raises(UserError, match='is not a duration'):
        duration_to_steps(value, total=100, batch_size=10, examples=100)


@pytest.mark.parametrize(
    ('text', 'units'), [('1 epoch', dict(batch_size=10)), ('1 epoch', dict(examples=10)), ('9 examples', {})]
)
def test_epochs_and_examples_need_batch_size_and_number_of_examples(text, units):
    with pytest.raises(UserError, match=text):
        duration_to_steps(text, total=100, **units)


@given(st.integers(1, 50), st.integers(1, 300))
def test_every_is_true_on_multiples_and_last_step(steps, total):
    due = [step for step in range(total + 1) if Every(steps, total)(step)]
    assert due == sorted({*range(steps, total + 1, steps), total})


def test_every_zero_steps_is_true_only_on_last_step():
    assert [step for step in range(11) if Every(0, 10)(step)] == [10]


RAMP = ((4, 2), (2, 4), (4, 8))


@pytest.mark.parametrize(
    ('number', 'from_start', 'from_end'),
    [(1, 1, 1), (8, 4, 1), (9, 5, 2), (16, 6, 2), (17, 7, 3), (32, 8, 4), (33, 9, 5), (48, 10, 10), (60, 12, 16)],
)  # fmt: skip
def test_examples_are_counted_over_phases_of_different_batch_sizes(number, from_start, from_end):
    for end, expected in ((False, from_start), (True, from_end)):
        found = duration_to_steps(f'{number} examples', batch_size=RAMP, from_end=end)
        assert found == expected
        assert duration_to_steps('3 epochs', batch_size=RAMP, examples=number, from_end=end) == (
            duration_to_steps(f'{3 * number} examples', batch_size=RAMP, from_end=end)
        )


@pytest.mark.parametrize(
    ('duration', 'expected'),
    [
        ('8 examples', [4, 6, 7, 8, 9, 10]),  # 8, 16, 24, ... examples
        ('12 examples', [5, 7, 9, 10]),
        ('2 epochs', [4, 6, 7, 8, 9, 10]),
        ('3 steps', [3, 6, 9, 10]),
        (0.4, [4, 8, 10]),
        ('0 examples', [10]),
    ],
)
def test_intervals_of_examples_over_phases_of_different_batch_sizes(duration, expected):
    every = make_every(duration, total=10, batch_size=RAMP, examples=4)
    assert [step for step in range(11) if every(step)] == expected
    assert make_every('8 examples', total=10, batch_size=4, examples=0) == Every(2, 10)
