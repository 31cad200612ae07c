"""A run at a glance: what it does, how its losses went, and where its time goes."""

import contextlib
import json
import shutil
import time

import pytest

from bert_jax.core import goodput, paths
from bert_jax.experiments import status
from tests.runs import pretrain, run_here


def test_a_sparkline_rises_and_falls_with_its_values():
    assert status.sparkline([]) == ''
    assert status.sparkline([3.0]) == '▁'
    assert status.sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == '▁▂▃▄▅▆▇█'
    assert status.sparkline(range(400), 4) == '▁▃▆█'


def test_shares_of_time_add_up_and_repeated_steps_do_not_count():
    first = {'began': 0, 'time': 100, 'from': 0, 'step': 40, 'lost': {'start': 10, 'compilation': 10}}
    second = {'began': 150, 'time': 200, 'from': 30, 'step': 50, 'lost': {'start': 10}}
    found = goodput.shares([first, second])
    assert sum(found.values()) == pytest.approx(1)
    assert found['down'] == 50 / 200
    assert found['again'] == pytest.approx(80 * 10 / 40 / 200)
    assert found['steps'] == pytest.approx((80 * 30 / 40 + 40) / 200)
    assert found['start'] == 20 / 200
    assert goodput.shares([]) == {}


def test_a_ledger_goes_on_where_a_run_is_resumed(tmp_path):
    ledger = goodput.Ledger(tmp_path, 0, 100)
    with ledger.lost('evaluation'):
        time.sleep(0.05)
    ledger.write(10)
    ledger.close()
    assert 0.05 <= goodput.read(tmp_path)['starts'][0]['lost']['evaluation'] < 1
    resumed = goodput.Ledger(tmp_path, 8, 100)
    resumed.write(12)
    resumed.write(16)
    assert [(s['from'], s['step']) for s in goodput.read(tmp_path)['starts']] == [(0, 10), (8, 16)]

    done = goodput.Ledger(tmp_path, 100, 100)
    done.write(100)
    assert len(goodput.read(tmp_path)['starts']) == 2, 'a run that is done does not start again'


@pytest.mark.parametrize('text', ['[]', 'null', '5', '{', '{"total": 20}', '{"total": 20, "starts": []}'])
def test_progress_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / goodput.FILE).write_text(text)
    assert goodput.read(tmp_path) == {}


def test_a_folder_is_listed_whatever_else_is_in_it(pretrained, tmp_path):
    (tmp_path / 'run').mkdir()
    for name in ('config.json', 'metrics.jsonl'):
        shutil.copy(pretrained / name, tmp_path / 'run')
    with (tmp_path / 'run' / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 30, "loss": 1.0}\n')  # by something else
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'config.json').write_text('{"architectures": ["BertModel"]}')
    said = run_here('bert_jax.bin.status', tmp_path)
    assert said.returncode == 0, said.stderr
    assert 'run ' in said.stdout
    shutil.rmtree(tmp_path / 'run')
    assert 'There is no run in' in run_here('bert_jax.bin.status', tmp_path).stderr


def test_a_run_at_a_glance(pretrained):
    said = run_here('bert_jax.bin.status', pretrained).stdout
    assert 'done, step 20 of 20 (100%)' in said
    assert 'tokens/s' in said
    assert 'checkpoint of step 20' in said
    assert all(
        f'{kind} ' in said for kind in ('goodput', 'compilation', 'checkpoints', 'evaluation', 'start')
    )


def test_a_run_that_is_silent_is_called_so(pretrained, tmp_path):
    (tmp_path / 'config.json').write_text((pretrained / 'config.json').read_text())
    assert 'not begun' in status.lines(tmp_path)[0]
    noted = goodput.read(pretrained)
    noted['total'] = 40
    (tmp_path / 'metrics.jsonl').write_text((pretrained / 'metrics.jsonl').read_text())
    for age, ended, held, what in (
        (0, '', True, 'running'),
        (3 * 3600, '', True, 'silent for 3 hours'),
        (0, '', False, 'died'),
        (0, 'failed', False, 'failed'),
    ):
        noted['starts'][-1] |= {'began': time.time() - age - 10, 'time': time.time() - age, 'ended': ended}
        (tmp_path / goodput.FILE).write_text(json.dumps(noted))
        with paths.held(tmp_path) if held else contextlib.nullcontext():
            said = status.lines(tmp_path)
        assert f'{what}, step 20 of 40 (50%)' in said[0]
        assert (' left' in said[1]) == (what == 'running')
        assert any('no checkpoint yet' in line for line in said)


def test_many_runs_have_a_line_each(pretrained, tmp_path):
    for name in ('a', 'b/c'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'config.json').write_text((pretrained / 'config.json').read_text())
    said = run_here('bert_jax.bin.status', tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in said] == ['run', 'a', 'b/c']
    (tmp_path / 'none').mkdir()
    assert 'There is no run' in run_here('bert_jax.bin.status', tmp_path / 'none').stderr


def test_the_trace_of_some_steps_is_kept(tmp_path, corpus, rows):
    assert (
        pretrain(tmp_path, corpus, rows, 'train.steps=4', 'train.profile=(3,4)', 'checkpoint.every=1.0') == 0
    )
    assert list((tmp_path / 'profile').rglob('*.xplane.pb'))
