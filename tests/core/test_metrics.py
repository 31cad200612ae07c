"""Exact means, metric files and the progress line."""

import io
import json
import logging
import math
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.event_file_writer import EventsWriter

from bert_jax.core import metrics


@given(
    st.lists(st.lists(st.tuples(st.integers(-99, 99), st.integers(0, 3)), max_size=7), min_size=1, max_size=6)
)
def test_mean_of_uneven_parts_equals_mean_of_all_values(parts):
    means = []
    for part in parts:
        values, weights = np.array(part, np.float32).reshape(-1, 2).T
        means.append({'loss': metrics.mean(jnp.asarray(values), jnp.asarray(weights))})
    values, weights = np.array([pair for part in parts for pair in part], np.float64).reshape(-1, 2).T
    expected = {'loss': (values * weights).sum() / weights.sum()} if weights.sum() else {}
    assert metrics.combine(means) == pytest.approx(expected, rel=1e-6)


def test_metrics_do_not_wait_for_tensorboard_after_its_thread_has_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(threading, 'excepthook', lambda _: None)
    writer = metrics.Writer(tmp_path, tmp_path, 0, ['tensorboard'], {})
    monkeypatch.setattr(EventsWriter, 'write_event', lambda *_: 1 / 0)

    def write():
        for step in range(50):
            writer(step, {'loss': 1.0})

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert len(metrics.read(tmp_path)) == 50
    writer.close()


def test_combined_mean_is_not_mean_of_means():
    parts = [
        {'a': metrics.mean(jnp.array([1.0, 2.0, 6.0]), jnp.ones(3))},
        {'a': metrics.mean(jnp.ones(1), jnp.ones(1))},
    ]
    assert metrics.combine(parts) == {'a': 2.5}
    assert float(parts[0]['a'].value()) == 3.0


def test_metric_missing_in_one_part():
    one = metrics.mean(jnp.array([4.0]), jnp.array([2.0]))
    assert metrics.combine(
        [{'a': one, 'b': one}, {'a': metrics.mean(jnp.array([1.0]), jnp.array([1.0]))}]
    ) == {
        'a': 3.0,
        'b': 4.0,
    }


def test_parts_are_summed_in_double_precision():
    parts = [{'a': metrics.Mean(np.float32(2**24), np.float32(1))}] + [
        {'a': metrics.Mean(np.float32(1), np.float32(0))}
    ] * 64
    assert metrics.combine(parts) == {'a': 2**24 + 64}


def test_weights_broadcast_and_may_be_boolean():
    m = metrics.mean(jnp.array([[1, 2, 3], [4, 5, 6]]), jnp.array([[True], [False]]))
    assert (float(m.total), float(m.weight)) == (6.0, 3.0)
    assert m.total.dtype == m.weight.dtype == jnp.float32


def test_metric_without_weight_is_not_reported():
    empty = metrics.mean(jnp.ones(3), jnp.zeros(3))
    assert float(empty.value()) == 0.0
    assert metrics.combine([{'a': empty}]) == {}


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
def test_format_count(number, text):
    assert metrics.format_count(number) == text


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0, '0:00'), (59.6, '1:00'), (123, '2:03'), (3723, '1:02:03'), (360_000, '100:00:00')],
)
def test_format_duration(seconds, text):
    assert metrics.format_duration(seconds) == text


def write(workdir, start, steps):
    writer = metrics.Writer(workdir, workdir, start, ['tensorboard'], {})
    for step in steps:
        writer(step, {'loss': 10.0 - step})
    writer.close()


def test_read_returns_written_metrics(tmp_path):
    write(tmp_path, 0, [1, 2])
    assert metrics.read(tmp_path) == [{'step': 1, 'loss': 9.0}, {'step': 2, 'loss': 8.0}]


def test_metrics_are_on_disk_before_writer_is_closed(tmp_path):
    writer = metrics.Writer(tmp_path, tmp_path, 0, ['tensorboard'], {})
    writer(1, {'loss': 1.0})
    assert metrics.read(tmp_path) == [{'step': 1, 'loss': 1.0}]
    writer.close()


def test_resuming_removes_only_later_lines(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4])
    write(tmp_path, 2, [3])
    assert [line['step'] for line in metrics.read(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize(
    'line',
    ['{"step": 2, "lo', '{"step": "2"}', '{"step": 2, "loss": [1]}', '[2]', '7']
    + [
        '{"step": Infinity}',
        '{"step": NaN}',
        '{"step": null}',
        f'{{"step": 1{"0" * 400}}}',
        '9' * 5000,
        '[' * 5000,
    ],
    ids=lambda line: line[:24],
)
def test_resuming_removes_invalid_lines(tmp_path, line):
    write(tmp_path, 0, [1, 2])
    path = tmp_path / 'metrics.jsonl'
    with path.open('a') as file:
        file.write(line + '\n')
    assert [line['step'] for line in metrics.read(tmp_path)] == [1, 2]
    write(tmp_path, 2, [3])
    assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_new_run_removes_lines_of_earlier_run(tmp_path):
    write(tmp_path, 0, [1, 2])
    write(tmp_path, 0, [1])
    assert [line['step'] for line in metrics.read(tmp_path)] == [1]


def read_events(workdir):
    """Read (step, tag, value) of every scalar in the TensorBoard files."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted((workdir / 'tensorboard').glob('events.*')):
        data, offset = path.read_bytes(), 0
        while offset < len(data):  # length (8 bytes), its checksum (4), record, its checksum (4)
            length = int.from_bytes(data[offset : offset + 8], 'little')
            event = Event.FromString(data[offset + 12 : offset + 12 + length])
            events += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            offset += 16 + length
    return events


def test_tensorboard_events_contain_finite_values(tmp_path):
    writer = metrics.Writer(tmp_path, tmp_path, 0, ['tensorboard'], {})
    writer(3, {'loss': 2.5, 'accuracy': 0.5})
    writer(4, {'loss': math.nan, 'accuracy': 0.75})
    writer.close()
    assert sorted(read_events(tmp_path)) == [(3, 'accuracy', 0.5), (3, 'loss', 2.5), (4, 'accuracy', 0.75)]


def test_missing_numbers_are_null_in_json(tmp_path):
    writer = metrics.Writer(tmp_path, tmp_path, 0, ['tensorboard'], {})
    writer(4, {'loss': math.inf, 'mfu': math.nan, 'accuracy': 0.75})
    writer.close()
    line = (tmp_path / 'metrics.jsonl').read_text()
    assert json.loads(line, parse_constant=pytest.fail)['loss'] is None
    (values,) = metrics.read(tmp_path)
    assert math.isnan(values['mfu'])
    assert values['accuracy'] == 0.75


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """Stream that counts as a terminal of 80 columns."""

    def isatty(self):
        return True

    @property
    def screen(self):
        """The lines that a user sees: a carriage return with an erase sequence clears the current line."""
        return [line.split('\r\033[K')[-1] for line in self.getvalue().split('\n')]


VALUES = {'loss': 2.34567, 'mlm_loss': 2.0, 'mlm_accuracy': 0.25, 'grad_norm': 1.0, 'learning_rate': 1e-4}
VALUES |= {'tokens_per_second': 12_345.0, 'mfu': 0.345}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(metrics.time, 'perf_counter', clock)
    return clock


def test_progress_shows_step_loss_metric_time_left_and_speed(clock):
    stream = io.StringIO()
    progress = metrics.Progress(4000, stream=stream)
    clock.now = 50.0
    progress(1000, VALUES)
    clock.now = 150.0
    progress(2000, VALUES)
    first, second = stream.getvalue().splitlines()
    assert first == 'step 1,000/4,000  loss 2.3457  mlm_accuracy 0.2500'
    assert second.startswith(first.replace('1,000', '2,000'))
    assert second.endswith('  3:20 left  12.3k tokens/s  MFU 34.5%')
    assert '\r' not in stream.getvalue()


def test_excluded_time_does_not_change_the_time_left(clock):
    stream = io.StringIO()
    progress = metrics.Progress(4000, stream=stream)
    progress.exclude(1000.0)  # before the first step
    progress(1000, VALUES)
    clock.now = 160.0
    progress.exclude(60.0)
    progress(2000, VALUES)
    assert '  3:20 left  ' in stream.getvalue()


def test_time_left_is_proportional_to_the_work(clock):
    stream = io.StringIO()
    progress = metrics.Progress(20, stream=stream, work=lambda step: step + 3 * max(0, step - 10))
    assert math.isnan(progress.time_left(1))
    progress(2, VALUES)
    clock.now = 16.0  # 2 seconds for each of the first ten steps, 8 for the others
    progress(10, VALUES)
    assert progress.time_left(10) == pytest.approx(80.0)
    assert '  1:20 left  ' in stream.getvalue()


@pytest.mark.parametrize(
    ('metric', 'shown'),
    [('mlm_loss', 'mlm_loss 2.0000'), ('f1', 'mlm_accuracy 0.2500'), ('loss', 'loss 2.3457')],
)
def test_progress_shows_selected_metric(metric, shown):
    stream = io.StringIO()
    metrics.Progress(10, metric, stream)(1, VALUES)
    assert stream.getvalue().strip().endswith(f'  {shown}')


def test_progress_omits_unknown_utilization(clock):
    stream = io.StringIO()
    progress = metrics.Progress(10, stream=stream)
    for step in (1, 10):
        progress(step, {**VALUES, 'mfu': math.nan})
    assert 'nan' not in stream.getvalue()
    assert 'tokens/s' in stream.getvalue()


def test_log_file_gets_first_and_last_step_and_one_line_per_interval(clock):
    stream = io.StringIO()
    progress = metrics.Progress(100, stream=stream, interval=5.0)
    for step in range(1, 101):
        clock.now = step * 0.5
        assert progress(step, VALUES) == (step % 10 == 1 or step == 100), 'tells whether it printed'
        if step == 52:
            progress.print_line('evaluation')
    progress.close()
    lines = [line.split('/')[0] for line in stream.getvalue().splitlines()]
    steps = [f'step {step}' for step in range(1, 100, 10)]
    assert lines == [*steps[:6], 'evaluation', *steps[6:], 'step 100']


def test_terminal_shows_one_progress_line_below_evaluations(clock):
    stream = Terminal()
    progress = metrics.Progress(10, stream=stream)
    for step in (1, 2, 3):
        clock.now += 1
        progress(step, VALUES)
    assert len(stream.screen) == 1
    assert stream.screen[0].startswith('step 3/10')
    progress.print_line('evaluation')
    clock.now += 1
    progress(4, VALUES)
    progress.close()
    above, line, end = stream.screen
    assert (above, line.split('  ')[0], end) == ('evaluation', 'step 4/10', '')


def test_terminal_is_not_updated_more_often_than_a_user_can_read(clock):
    stream = Terminal()
    progress = metrics.Progress(1000, stream=stream)
    for step in range(1, 1001):
        clock.now += 0.001
        progress(step, VALUES)
    assert stream.getvalue().count('step') <= 11
    assert stream.screen[-1].startswith('step 1,000/1,000')


def test_progress_line_does_not_wrap(clock, monkeypatch):
    stream = Terminal()
    progress = metrics.Progress(10, stream=stream)
    monkeypatch.setattr(progress, '_width', lambda: 20)
    progress(1, VALUES)
    assert stream.screen == ['step 1/10  loss 2.3']


def test_log_message_replaces_progress_line(clock):
    stream = Terminal()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        progress = metrics.Progress(10, stream=stream)
        progress(1, VALUES)
        logging.warning('disk is slow')
        clock.now += 1
        progress(2, VALUES)
        progress.close()
        logging.warning('done')
    finally:
        logging.getLogger().removeHandler(handler)
    assert [line.split('  ')[0] for line in stream.screen] == ['disk is slow', 'step 2/10', 'done', '']
    assert not handler.filters


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('loss', True),
        ('mlm_loss/en', True),
        ('cross_entropy', True),
        ('squared_error', True),
        ('word_perplexity', True),
        ('bits_per_byte', True),
        ('accuracy', False),
        ('mlm_accuracy/en', False),
    ],
)
def test_direction_of_a_metric_follows_from_its_name(name, expected):
    assert metrics.is_lower_better(name) == expected
