"""Status of runs: state, sparklines, and where the time goes."""

import contextlib
import json
import shutil
import time

import pytest

from bert_jax.core import goodput, metrics, paths
from bert_jax.core.errors import UserError
from bert_jax.experiments import status
from tests.runs import pretrain, run_in_process


def test_sparkline_follows_the_values():
    assert status.sparkline([]) == ''
    assert status.sparkline([3.0]) == '▁'
    assert status.sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == '▁▂▃▄▅▆▇█'
    assert status.sparkline(range(400), 4) == '▁▃▆█'


def test_time_shares_add_up_and_separate_repeated_steps():
    first = {'began': 0, 'time': 100, 'from': 0, 'step': 40, 'overhead': {'start': 10, 'compilation': 10}}
    second = {'began': 150, 'time': 200, 'from': 30, 'step': 50, 'overhead': {'start': 10}}
    found = goodput.time_shares([first, second])
    assert sum(found.values()) == pytest.approx(1)
    assert found['downtime'] == 50 / 200
    assert found['repeated steps'] == pytest.approx(80 * 10 / 40 / 200)
    assert found['steps'] == pytest.approx((80 * 30 / 40 + 40) / 200)
    assert found['start'] == 20 / 200
    assert goodput.time_shares([]) == {}


def test_time_shares_count_a_start_without_a_recorded_step():
    failed = {'began': 0, 'time': 100, 'from': 0, 'step': 0, 'overhead': {'start': 10}}
    second = {'began': 100, 'time': 200, 'from': 0, 'step': 50, 'overhead': {'start': 10}}
    found = goodput.time_shares([failed, second])
    assert (found['repeated steps'], found['steps'], found['start']) == (0.45, 0.45, 0.1)


def test_ledger_adds_an_entry_when_a_run_resumes(tmp_path):
    ledger = goodput.Ledger(tmp_path, 0, 100)
    with ledger.overhead('evaluation'):
        time.sleep(0.05)
    ledger.write(10)
    ledger.close()
    assert 0.05 <= goodput.read(tmp_path)['starts'][0]['overhead']['evaluation'] < 1
    resumed = goodput.Ledger(tmp_path, 8, 100)
    resumed.write(12)
    resumed.write(16)
    assert [(s['from'], s['step']) for s in goodput.read(tmp_path)['starts']] == [(0, 10), (8, 16)]


def test_time_until_a_failure_is_counted(tmp_path):
    ledger = goodput.Ledger(tmp_path, 0, 100)
    with pytest.raises(ValueError, match='failed'), ledger.overhead('data'):
        time.sleep(0.05)
        raise ValueError('failed')
    ledger.record_end('failed')
    assert 0.05 <= goodput.read(tmp_path)['starts'][0]['overhead']['data'] < 1


@pytest.mark.parametrize('text', ['[]', 'null', '5', '{', '{"total": 20}', '{"total": 20, "starts": []}'])
def test_invalid_progress_file_is_empty(tmp_path, text):
    (tmp_path / goodput.FILE).write_text(text)
    assert goodput.read(tmp_path) == {}


def test_table_skips_files_of_other_programs(pretrained, tmp_path):
    (tmp_path / 'run').mkdir()
    for name in ('config.json', 'metrics.jsonl'):
        shutil.copy(pretrained / name, tmp_path / 'run')
    with (tmp_path / 'run' / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 30, "loss": 1.0}\n')  # not a line of bert_jax
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'config.json').write_text('{"architectures": ["BertModel"]}')
    output = run_in_process('bert_jax.bin.status', tmp_path)
    assert output.returncode == 0, output.stderr
    assert 'run ' in output.stdout
    shutil.rmtree(tmp_path / 'run')
    assert 'There is no run in' in run_in_process('bert_jax.bin.status', tmp_path).stderr


def test_description_of_a_finished_run(pretrained):
    output = run_in_process('bert_jax.bin.status', pretrained).stdout
    assert 'done, step 20 of 20 (100%)' in output
    assert 'tokens/s' in output
    assert 'checkpoint of step 20' in output
    assert all(
        f'{kind} ' in output for kind in ('goodput', 'compilation', 'checkpoints', 'evaluation', 'start')
    )


def test_states_of_a_run(pretrained, tmp_path):
    (tmp_path / 'config.json').write_text((pretrained / 'config.json').read_text())
    assert 'not started' in status.describe(tmp_path)[0]
    progress = goodput.read(pretrained)
    progress['total'] = 40
    (tmp_path / 'metrics.jsonl').write_text((pretrained / 'metrics.jsonl').read_text())
    for age, ended, is_locked, expected in (
        (0, '', True, 'running'),
        (3 * 3600, '', True, 'silent for 3 hours'),
        (0, '', False, 'died'),
        (0, 'failed', False, 'failed'),
    ):
        progress['starts'][-1] |= {'began': time.time() - age - 10, 'time': time.time() - age, 'ended': ended}
        progress['starts'][-1]['left'] = 60.0
        (tmp_path / goodput.FILE).write_text(json.dumps(progress))
        with paths.lock_workdir(tmp_path) if is_locked else contextlib.nullcontext():
            output = status.describe(tmp_path)
        assert f'{expected}, step 20 of 40 (50%)' in output[0]
        assert (' left' in output[1]) == (expected == 'running')
        assert any('no checkpoint yet' in line for line in output)


def test_step_is_the_last_one_in_the_log(tmp_path, corpus, rows, monkeypatch):
    show = metrics.Progress.__call__

    def show_until_failure(self, step, values):
        if step == 8:
            raise UserError('no more.')
        self._interval = 0
        return show(self, step, values)

    monkeypatch.setattr(metrics.Progress, '__call__', show_until_failure)
    with pytest.raises(UserError, match='no more'):
        pretrain(tmp_path, corpus, rows, 'train.log_every=5')
    assert 'failed, step 7 of 20' in status.describe(tmp_path)[0]


def test_table_has_one_line_per_run(pretrained, tmp_path):
    for name in ('a', 'b/c'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'config.json').write_text((pretrained / 'config.json').read_text())
    output = run_in_process('bert_jax.bin.status', tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in output] == ['run', 'a', 'b/c']
    (tmp_path / 'none').mkdir()
    assert 'There is no run' in run_in_process('bert_jax.bin.status', tmp_path / 'none').stderr


def test_profile_of_some_steps_is_saved(tmp_path, corpus, rows):
    assert pretrain(tmp_path, corpus, rows, 'train.steps=4', 'train.profile_steps=(3,4)') == 0
    assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


@pytest.mark.parametrize('damage', ['total', 'starts', 'time', 'overhead'])
def test_damaged_progress_is_left_out(tmp_path, damage):
    start = {'began': 1.0, 'time': 2.0, 'from': 0, 'step': 3, 'overhead': {'start': 0.5}}
    content = {'total': 9, 'starts': [start]}
    file = tmp_path / goodput.FILE
    file.write_text(json.dumps(content))
    assert goodput.read(tmp_path) == content
    (content if damage in content else start)[damage] = 'x'
    file.write_text(json.dumps(content))
    assert goodput.read(tmp_path) == {}
