"""Tests of the throughput benchmark, on the CPU with a tiny model."""

import numpy as np
import pytest

from bert_jax.benchmarks import masked_rows, processes, throughput
from bert_jax.core.errors import UserError
from tests.runs import run_command

CPU = throughput.Device('cpu', 'test', 1e12, {'JAX_PLATFORMS': 'cpu'})
CASE = throughput.Case('bert_jax', 'tiny', 32, 'full', 0.0, 4, 'cpu', 'float32', {}, 0.05)


@pytest.mark.parametrize('length', [32, 512])
def test_kinds_of_rows(length):
    full, packed, padded = (masked_rows.make_batch(kind, 10, length) for kind in masked_rows.KINDS)
    assert full['valid'].all()
    assert packed['valid'].all()
    assert packed['valid'].max() >= 3
    assert np.isin(np.diff(packed['valid'], axis=1), (0, 1)).all()
    assert padded['valid'].mean() == pytest.approx(0.7, abs=0.01)
    for batch in (full, packed, padded):
        real = np.count_nonzero(batch['valid'], axis=1)
        assert (batch['weights'].sum(1) == np.ceil(0.15 * real)).all()
        for row, weights in enumerate(batch['weights']):
            positions = batch['positions'][row, weights > 0]
            assert len({*positions}) == len(positions)
            assert batch['valid'][row, positions].all()
            np.testing.assert_array_equal(batch['labels'][row, weights > 0], batch['tokens'][row, positions])


def test_work_counts_real_tokens_and_attention_between_them():
    width, mlp_width, vocab_size = 128, 512, masked_rows.VOCAB
    for kind in masked_rows.KINDS:
        batch = masked_rows.make_batch(kind, 6, 64)
        documents = batch['valid'].astype(int)
        tokens, predicted = np.count_nonzero(documents), batch['weights'].sum()
        attended = sum((row == number).sum() ** 2 for row in documents for number in {*row} - {0}) / tokens
        per_query = 2 * width**2 + 4 * width * mlp_width + 4 * attended * width
        # The last layer computes only the predicted positions and the first one of each row.
        forward = 2 * tokens * 6 * width**2 + (tokens + predicted + 6) * per_query
        forward += predicted * 2 * (width**2 + width * vocab_size)
        config = throughput.throughput_jax.model_config({**vars(CASE), 'length': 64})
        work = masked_rows.count_work(masked_rows.make_task(kind), config, batch)
        assert work.tokens == tokens
        assert work.flops == pytest.approx(3 * forward)


def fake_timings(largest):
    """Return the list of timed batches, and a function that times batches of at most `largest` rows."""
    timed = []

    def run(rows):
        timed.append(rows)
        return {'rows': rows} if rows <= largest else {'error': 'full', 'out_of_memory': True}

    return timed, run


@pytest.mark.parametrize(
    ('first', 'doublings', 'largest', 'expected'),
    [
        (4, 3, 100, [4, 8, 16, 32]),
        (4, 3, 10, [4, 8, 16]),
        (4, 0, 100, [4]),
        (16, 3, 5, [16, 8, 4]),
        (3, 3, 0, [3, 1]),
    ],
)
def test_batch_is_doubled_until_it_does_not_fit(first, doublings, largest, expected):
    timed, run = fake_timings(largest)
    throughput.search_batch(run, first, doublings)
    assert timed == expected


def test_other_errors_end_the_search():
    timed = []
    throughput.search_batch(
        lambda rows: timed.append(rows) or {'error': 'no kernel', 'out_of_memory': False}, 8, 3
    )
    assert timed == [8]


def result(program, rows, speed=None, error=None, **fields):
    timed = {'step_seconds': 0.1, 'tokens_per_second': speed, 'mfu': 0.5, 'peak_memory': 3 * 2**30}
    failed = {'error': error, 'out_of_memory': error == 'full'}
    case = {
        'size': 'base',
        'length': 512,
        'kind': 'full',
        'dropout': 0.0,
        'program': program,
        'rows': rows,
        'model': {},
    }
    return case | (failed if error else timed) | fields


def test_table_shows_the_fastest_batch_of_each_program():
    table = throughput.format_table(
        [
            result('bert_jax', 64, 1000),
            result('bert_jax', 128, 2000),
            result('bert_jax', 256, error='full'),
            result('tuned PyTorch', 64, 1500),
            result('transformers', 64, error='no kernel'),
            result('bert_jax', 64, 2500, model={'remat': 'dots'}, dropout=0.1),
            result('bert_jax', 64, 5000, dropout=0.1),
            result('tuned PyTorch', 64, 1500, kind='padded'),
        ]
    ).splitlines()
    cells = [line.split('  ') for line in table[1:]]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in cells]
    first = ['base', '512', 'full', '0']
    assert cells == [
        [*first, 'bert_jax', '128', '100.0 ms', '2,000 tokens/s', 'MFU 50.0%', '3.0 GiB', '1.00'],
        [*first, 'tuned PyTorch', '64', '100.0 ms', '1,500 tokens/s', 'MFU 50.0%', '3.0 GiB', '0.75'],
        [*first, 'transformers', '64', 'failed'],
        ['base', '512', 'full', '0.1', 'bert_jax remat=dots', '64', '100.0 ms', '2,500 tokens/s', 'MFU 50.0%', '3.0 GiB', '0.50'],
        ['base', '512', 'full', '0.1', 'bert_jax', '64', '100.0 ms', '5,000 tokens/s', 'MFU 50.0%', '3.0 GiB', '1.00'],
        ['base', '512', 'padded', '0', 'tuned PyTorch', '64', '100.0 ms', '1,500 tokens/s', 'MFU 50.0%', '3.0 GiB', '—'],
    ]  # fmt: skip


def test_speed_and_utilization_follow_from_the_step_time(monkeypatch):
    monkeypatch.setattr(processes, 'call', lambda *_: [{'step_seconds': 0.5}])
    timed = throughput.time_case(CASE, CPU, 10)
    batch = masked_rows.make_batch('full', 4, 32)
    task, config = masked_rows.make_task('full'), throughput.throughput_jax.model_config(vars(CASE))
    assert timed['tokens_per_second'] == 4 * 32 / 0.5
    assert timed['mfu'] == pytest.approx(3 * task.flops(config, batch) / 0.5 / 1e12)


def test_failures_are_results(monkeypatch):
    failures = iter(
        [
            processes.Failure('XlaRuntimeError: RESOURCE_EXHAUSTED: 3 GiB', True, [], ''),
            processes.Failure('killed', False, [{'step_seconds': 0.5}], ''),
        ]
    )

    def fail(*_):
        raise next(failures)

    monkeypatch.setattr(processes, 'call', fail)
    full = throughput.time_case(CASE, CPU, 10)
    assert full['out_of_memory']
    assert throughput.format_result(full) == 'tiny 32 full, 4 rows, bert_jax: out of memory'
    partial = throughput.time_case(CASE, CPU, 10)  # torch.compile took too long, for example
    assert partial['note'] == 'killed'
    assert 'error' not in partial


def test_every_result_is_written_at_once(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'new' / 'results.jsonl'
    written = []

    def time_case(case, *_):
        written.append(out.read_text().count('\n') if out.exists() else 0)
        if case.program != 'bert_jax':
            return vars(case) | {'error': 'no module', 'out_of_memory': False}
        return vars(case) | {'step_seconds': 0.1, 'tokens_per_second': 10.0, 'mfu': 0.1}

    monkeypatch.setattr(throughput, 'time_case', time_case)
    programs = ['bert_jax', 'transformers']
    throughput.measure(CPU, ['tiny'], [32], ['full', 'packed'], programs, out, rows=2, doublings=1)
    assert written == [0, 1, 2, 3, 4]  # transformers has no packed rows
    throughput.measure(CPU, ['mini'], [32], ['full'], ['bert_jax'], out, rows=2, doublings=0)
    assert len(throughput.read_results(out)) == 6
    assert {'tiny', 'mini'} <= {line.split()[0] for line in capsys.readouterr().out.splitlines()[-6:]}
    with pytest.raises(UserError, match='No program could be timed'):
        throughput.measure(CPU, ['tiny'], [32], ['full'], ['transformers'], None, rows=2, doublings=0)


def test_damaged_results_are_reported(tmp_path):
    (tmp_path / 'x').write_text('{')
    with pytest.raises(UserError, match='does not consist of JSON lines'):
        throughput.read_results(tmp_path / 'x')


@pytest.mark.parametrize('device', ['gpu', 'tpu'])
def test_missing_device_raises(device):
    message = rf"--device={device}, but JAX only finds 'cpu' \(cpu\). Install JAX for {device.upper()}s"
    with pytest.raises(UserError, match=message):
        throughput.find_device(device)


SMALL = {'layers': 1, 'width': 16, 'heads': 2, 'mlp_width': 32}


def check_timed(timed):
    assert timed['tokens_per_second'] == pytest.approx(timed['tokens'] / timed['step_seconds'])
    assert timed['mfu'] > 0
    assert 9 < timed['loss'] < 11  # the logarithm of the vocabulary is 10.3
    assert timed['model'] == SMALL


def test_all_kinds_of_rows_are_timed(monkeypatch):
    monkeypatch.setattr(
        processes, 'call', lambda module, function, arguments, *_: [*throughput.throughput_jax.time_bert_jax(**arguments)]
    )  # fmt: skip
    results = throughput.measure(
        CPU, ['tiny'], [16], masked_rows.KINDS, ['bert_jax'], None, dropout=0.1, rows=2, doublings=0, model=SMALL, seconds=0.01
    )  # fmt: skip
    assert [r['kind'] for r in results] == [*masked_rows.KINDS]
    assert [r['tokens'] for r in results] == [32, 32, 22]
    for timed in results:
        check_timed(timed)


@pytest.mark.slow
def test_command(tmp_path):
    out = tmp_path / 'results.jsonl'
    flags = ('--rows=padded', '--lengths=16', '--batch=2', '--doublings=0', '--seconds=0.01', '--profile')
    model = [f'--model={key}={value}' for key, value in SMALL.items()]
    done = run_command(
        'bert_jax.bin.bench', 'tiny', '--throughput', '--device=cpu', '--programs=bert_jax', *flags, *model, f'--out={out}'
    )  # fmt: skip
    (timed,) = throughput.read_results(out)
    check_timed(timed)
    assert timed['operations']
    assert 'tiny  16      padded  0        bert_jax' in done.stdout
