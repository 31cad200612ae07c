"""Exact means, metric files, and the progress line."""

import io
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core import metrics


@given(
    st.lists(st.lists(st.tuples(st.integers(-99, 99), st.integers(0, 3)), max_size=7), min_size=1, max_size=6)
)
def test_the_mean_over_uneven_parts_is_that_of_the_whole(parts):
    made = []
    for part in parts:
        values, weights = np.array(part, np.float32).reshape(-1, 2).T
        made.append({'loss': metrics.mean(jnp.asarray(values), jnp.asarray(weights))})
    values, weights = np.array([pair for part in parts for pair in part], np.float64).reshape(-1, 2).T
    expected = {'loss': (values * weights).sum() / weights.sum()} if weights.sum() else {}
    assert metrics.combine(made) == pytest.approx(expected, rel=1e-6)


def test_a_mean_of_means_would_differ():
    parts = [
        {'a': metrics.mean(jnp.array([1.0, 2.0, 6.0]), jnp.ones(3))},
        {'a': metrics.mean(jnp.ones(1), jnp.ones(1))},
    ]
    assert metrics.combine(parts) == {'a': 2.5}
    assert float(parts[0]['a'].value()) == 3.0


def test_a_name_that_one_part_lacks_is_the_mean_of_the_others():
    one = metrics.mean(jnp.array([4.0]), jnp.array([2.0]))
    assert metrics.combine(
        [{'a': one, 'b': one}, {'a': metrics.mean(jnp.array([1.0]), jnp.array([1.0]))}]
    ) == {
        'a': 3.0,
        'b': 4.0,
    }


def test_many_parts_are_added_up_in_double_precision():
    parts = [{'a': metrics.Mean(np.float32(2**24), np.float32(1))}] + [
        {'a': metrics.Mean(np.float32(1), np.float32(0))}
    ] * 64
    assert metrics.combine(parts) == {'a': 2**24 + 64}


def test_weights_broadcast_and_may_be_booleans():
    m = metrics.mean(jnp.array([[1, 2, 3], [4, 5, 6]]), jnp.array([[True], [False]]))
    assert (float(m.total), float(m.weight)) == (6.0, 3.0)
    assert m.total.dtype == m.weight.dtype == jnp.float32


def test_what_has_no_weight_is_zero_and_is_not_reported():
    nothing = metrics.mean(jnp.ones(3), jnp.zeros(3))
    assert float(nothing.value()) == 0.0
    assert metrics.combine([{'a': nothing}]) == {}


@pytest.mark.parametrize(
    ('number', 'text'),
    [
        (0, '0'),
        (999, '999'),
        (1000, '1.0k'),
        (12_345, '12.3k'),
        (1_234_567, '1.2M'),
        (2.5e9, '2.5G'),
        (999_999, '1.0M'),
    ],
)
def test_human(number, text):
    assert metrics.human(number) == text


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0, '0:00'), (59.6, '1:00'), (123, '2:03'), (3723, '1:02:03'), (360_000, '100:00:00')],
)
def test_clock(seconds, text):
    assert metrics.clock(seconds) == text


def write(workdir, start, steps):
    writer = metrics.Writer(workdir, start)
    for step in steps:
        writer(step, {'loss': 10.0 - step})
    writer.close()


def test_written_lines_are_read_back(tmp_path):
    write(tmp_path, 0, [1, 2])
    assert metrics.read(tmp_path) == [{'step': 1, 'loss': 9.0}, {'step': 2, 'loss': 8.0}]


def test_a_line_is_on_disk_before_the_writer_is_closed(tmp_path):
    writer = metrics.Writer(tmp_path, 0)
    writer(1, {'loss': 1.0})
    assert metrics.read(tmp_path) == [{'step': 1, 'loss': 1.0}]
    writer.close()


def test_resuming_drops_lines_after_the_step_and_keeps_the_rest(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    write(tmp_path, 2, [3])
    assert [line['step'] for line in metrics.read(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize('left', ['{"step": 2, "lo', '{"step": "2"}', '{"step": 2, "loss": [1]}', '[2]', '7'])
def test_resuming_drops_a_line_cut_in_half_or_of_something_else(tmp_path, left):
    write(tmp_path, 0, [1, 2])
    path = tmp_path / 'metrics.jsonl'
    with path.open('a') as file:
        file.write(left + '\n')
    assert [line['step'] for line in metrics.read(tmp_path)] == [1, 2]
    write(tmp_path, 2, [3])
    assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_new_run_drops_what_another_left(tmp_path):
    write(tmp_path, 0, [1, 2])
    write(tmp_path, 0, [1])
    assert [line['step'] for line in metrics.read(tmp_path)] == [1]


def events(workdir):
    """(step, tag, value) of every scalar in the TensorBoard files."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((workdir / 'tensorboard').glob('events.*')):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length (8 bytes), its checksum (4), record, its checksum (4)
            length = int.from_bytes(data[at : at + 8], 'little')
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            at += 16 + length
    return found


def test_tensorboard_events_hold_each_finite_value_at_its_step(tmp_path):
    writer = metrics.Writer(tmp_path, 0)
    writer(3, {'loss': 2.5, 'accuracy': 0.5})
    writer(4, {'loss': math.nan, 'accuracy': 0.75})
    writer.close()
    assert sorted(events(tmp_path)) == [(3, 'accuracy', 0.5), (3, 'loss', 2.5), (4, 'accuracy', 0.75)]


def test_lines_are_json_also_without_a_number(tmp_path):
    writer = metrics.Writer(tmp_path, 0)
    writer(4, {'loss': math.inf, 'mfu': math.nan, 'accuracy': 0.75})
    writer.close()
    line = (tmp_path / 'metrics.jsonl').read_text()
    assert json.loads(line, parse_constant=pytest.fail)['loss'] is None
    (found,) = metrics.read(tmp_path)
    assert math.isnan(found['mfu'])
    assert found['accuracy'] == 0.75


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


VALUES = {'loss': 2.34567, 'tokens_per_second': 12_345.0, 'mfu': 0.345}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(metrics.time, 'perf_counter', clock)
    return clock


def test_progress_shows_step_loss_speed_and_time_left(clock):
    stream = io.StringIO()
    progress = metrics.Progress(1000, 4000, stream)
    clock.now = 100.0
    progress(2000, VALUES)
    text = stream.getvalue()
    for part in ('step 2,000/4,000', 'loss 2.3457', '12.3k tokens/s', 'MFU 34.5%', 'left 3:20'):
        assert part in text
    assert text.endswith('\n')
    assert '\r' not in text


def test_progress_leaves_out_an_unknown_utilisation(clock):
    stream = io.StringIO()
    metrics.Progress(0, 10, stream)(1, {**VALUES, 'mfu': math.nan})
    assert 'nan' not in stream.getvalue()
    assert 'left' in stream.getvalue()


def test_progress_stays_on_one_line_of_a_terminal(clock):
    stream = Terminal()
    progress = metrics.Progress(0, 10, stream)
    progress(1, VALUES)
    progress(2, VALUES)
    assert '\n' not in stream.getvalue()
    assert stream.getvalue().count('\r') == 2
    progress.say('saved')
    assert stream.getvalue().endswith('saved\n')
    progress.close()
    assert stream.getvalue().endswith('saved\n\n')
