"""A working directory whose settings change: taken over, trained longer, or left as it is."""

import json
import logging
import shlex

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import loop, resume
from tests.runs import MANY_CHECKPOINTS, TINY, checkpoint_arrays, metric_lines, pretrain, run_in_process

CONSTANT = ('optim.schedule=constant', 'train.eval_every=3', 'checkpoint.every=3')


@pytest.fixture(autouse=True)
def log_level(caplog):
    caplog.set_level(logging.INFO)


def test_run_without_checkpoint_is_taken_over(tmp_path, corpus, caplog, monkeypatch):
    monkeypatch.setattr(loop, 'train', lambda *_: 0)

    def train(*overrides):
        return pretrain(tmp_path, corpus, '', *overrides)

    assert train() == 0
    assert train() == 0
    changes = 'tokenizer.vocab_size=100', 'data.seed=1', 'model.width=16', 'train.batch_size=8'
    assert 'again' not in caplog.text
    assert train(*changes) == 0
    assert 'vocab_size (200, now 100). It is trained again.' in caplog.text
    assert 'seed (0, now 1). They are prepared again.' in caplog.text
    assert (
        'saved no checkpoint, so it starts again with the new config (data.seed was 0, is 1;' in caplog.text
    )
    assert json.loads((tmp_path / 'config.json').read_text())['model']['vocab_size'] <= 100
    (tmp_path / 'checkpoints' / '10').mkdir(parents=True)
    with pytest.raises(UserError, match=r'contains a run with another config \(data\.seed was 1, is 2\)'):
        train(*changes, 'data.seed=2')


def test_longer_run_equals_one_that_was_as_long_from_the_start(tmp_path, corpus, rows, caplog, monkeypatch):
    run, whole = tmp_path / 'run', tmp_path / 'whole'

    def train(workdir, *overrides):
        return pretrain(workdir, corpus, rows, *CONSTANT, *overrides)

    longer = 'train.steps=9', 'optim.warmup=0.5'
    assert train(run, 'train.steps=6', 'optim.warmup=0.5') == 0
    assert train(run, *longer) == 0
    assert 'training 9 steps instead of 6, from the checkpoint of step 6' in caplog.text
    assert 'optim.warmup stays at 3 steps' in caplog.text
    assert train(whole, 'train.steps=9', 'optim.warmup=3') == 0
    assert metric_lines(run) == metric_lines(whole)
    assert json.loads((run / 'config.json').read_text()) == json.loads((whole / 'config.json').read_text())
    left, right = checkpoint_arrays(run, 9), checkpoint_arrays(whole, 9)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)

    caplog.clear()
    monkeypatch.setattr(loop, 'Monitor', None)  # the finished run writes no metrics and no progress
    assert train(run, *longer) == 0
    assert f'{run} has finished all its 9 steps' in caplog.text
    assert f'mlm_loss {metric_lines(run)[-1]["eval/mlm_loss"]:.4f}' in caplog.text
    assert f'checkpoint: {run}/checkpoints/9' in caplog.text


def test_error_contains_a_command_that_trains_longer(pretrained, corpus, rows):
    before = (pretrained / 'config.json').read_text()
    settings = *MANY_CHECKPOINTS, 'train.steps=22', 'optim.warmup=0', 'model.width=32', 'train.eval_every=0'
    with pytest.raises(UserError, match=r'optim\.warmup was 2, is 0'):
        pretrain(pretrained, corpus, rows, *settings)
    settings = [setting for setting in settings if 'warmup' not in setting]
    with pytest.raises(UserError, match=r"schedule='linear' lowered .* end of 20 steps") as error:
        pretrain(pretrained, corpus, rows, *settings)
    assert (pretrained / 'config.json').read_text() == before
    python, flag, *arguments = shlex.split(str(error.value).split('`')[1])
    assert (python, flag) == ('python', '-m')
    done = run_in_process(*arguments, '--config.optim.warmup=0')
    assert done.returncode == 0, done.stderr
    longer = json.loads((pretrained.with_name(f'{pretrained.name}_longer') / 'config.json').read_text())
    assert (longer['train']['steps'], longer['train']['seed']) == (2, 1)
    assert longer['init']['checkpoint'] == str(pretrained)


def make_run(folder, saved_steps, *overrides):
    """Return the saved config of a run with empty checkpoints, and a function that changes the config."""
    for step in saved_steps:
        (folder / 'checkpoints' / str(step)).mkdir(parents=True)
    saved = experiment_lib.read(f'{TINY}:pretrain', overrides).as_dict()

    def train_longer(*changes):
        experiment = experiment_lib.read(f'{TINY}:pretrain', [*overrides, *changes])
        resume.check_config(folder, saved, experiment.as_dict())
        return resume.train_longer(folder, saved, experiment, lambda: 64, lambda n: f'COMMAND {n}')

    return train_longer


WSD = 'optim.schedule=wsd', 'optim.warmup=0.1', 'optim.decay=0.2', "train.steps='5 epochs'"  # 20 steps


def test_longer_run_continues_from_before_its_decay(tmp_path):
    train_longer = make_run(tmp_path, [12, 16, 18, 20], *WSD)
    found = train_longer("train.steps='10 epochs'")
    assert (found.optim.warmup, found.optim.decay, found.train.steps) == (2, 0.2, '10 epochs')
    names = sorted(path.name for path in (tmp_path / 'checkpoints').iterdir())
    assert names == ['12', '16', 'decayed-18', 'decayed-20']


def test_run_that_has_only_checkpoints_of_its_decay_is_left_as_it_is(tmp_path):
    train_longer = make_run(tmp_path, [18, 20], *WSD)
    with pytest.raises(UserError, match="before optim.schedule='wsd' lowered .*: `COMMAND 20`"):
        train_longer("train.steps='10 epochs'")
    assert sorted(path.name for path in (tmp_path / 'checkpoints').iterdir()) == ['18', '20']


def test_fewer_steps_than_trained_are_rejected(tmp_path):
    train_longer = make_run(tmp_path, [10], 'optim.schedule=constant')
    with pytest.raises(
        UserError, match='has trained 10 steps, more than train.steps=5. Restore train.steps=20'
    ):
        train_longer('train.steps=5')
    assert train_longer('train.steps=10').train.steps == 10


def test_other_changes_are_rejected(tmp_path):
    train_longer = make_run(tmp_path, [10], 'optim.schedule=constant', 'optim.warmup=0.1')
    with pytest.raises(UserError, match=r'optim\.warmup was 0\.1, is 0\.2'):
        train_longer('optim.warmup=0.2')


@pytest.mark.parametrize('change', ['optim.b2=0.9', 'optim.schedule=linear'])
def test_warmup_of_a_run_that_was_trained_longer_is_no_change(tmp_path, change):
    (tmp_path / 'checkpoints' / '10').mkdir(parents=True)
    saved, now = (
        experiment_lib.read(f'{TINY}:pretrain', ['optim.schedule=constant', *changes]).as_dict()
        for changes in (['optim.warmup=1'], ['optim.warmup=0.1', change])
    )
    with pytest.raises(UserError, match=rf'another config \({change.split("=")[0]} was [^;]*\)'):
        resume.check_config(tmp_path, saved, now)
