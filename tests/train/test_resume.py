"""Resuming an interrupted run gives the same result as an uninterrupted run; checkpoints and their errors."""

import json
import logging
import shutil

import numpy as np
import pytest

from bert_jax.core import metrics
from bert_jax.core.errors import UserError
from bert_jax.experiments import status
from bert_jax.train import loop
from tests.runs import (
    MANY_CHECKPOINTS,
    TINY,
    checkpoint_arrays,
    finetune,
    metric_lines,
    run_command,
    slow_after,
)
from tests.runs import pretrain as pretrain_with

KILL_AT_11 = """
import os, signal
from bert_jax.core import metrics
write = metrics.Writer.__call__
def call(self, step, values):
    write(self, step, values)
    if step == 11:
        os.kill(os.getpid(), signal.{signal})
metrics.Writer.__call__ = call
"""


def pretrain(workdir, corpus, rows, *overrides):
    """Run the training command in this process, as for the fixture `pretrained`."""
    return pretrain_with(workdir, corpus, rows, *MANY_CHECKPOINTS, *overrides)


def _arguments(workdir, corpus, rows):
    return (
        'bert_jax.bin.train',
        f'--config={TINY}:pretrain',
        f'--workdir={workdir}',
        f'--config.data.sources=({str(corpus)!r},)',
        f'--config.data.rows_dir={rows}',
        *(f'--config.{setting}' for setting in MANY_CHECKPOINTS),
    )


def _assert_same_run(a, b):
    assert metric_lines(a) == metric_lines(b)
    left, right = checkpoint_arrays(a, 20), checkpoint_arrays(b, 20)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_killed_and_resumed_run_equals_uninterrupted_run_bitwise(tmp_path, corpus, rows, pretrained):
    killed = run_command(*_arguments(tmp_path, corpus, rows), code=KILL_AT_11.format(signal='SIGKILL'))
    assert killed.returncode == -9
    assert not (tmp_path / 'checkpoints' / '20').exists()
    assert 'died, step 11 of 20' in status.describe(tmp_path)[0]
    assert pretrain(tmp_path, corpus, rows) == 0
    _assert_same_run(tmp_path, pretrained)


def test_sigterm_saves_a_checkpoint_and_resumed_run_is_bitwise_equal(tmp_path, corpus, rows, pretrained):
    arguments = (
        *_arguments(tmp_path, corpus, rows),
        '--config.train.workers=2',
    )  # which must not change the result
    stopped = run_command(*arguments, code=KILL_AT_11.format(signal='SIGTERM'))
    assert stopped.returncode == loop.EXIT_STOPPED, stopped.stderr
    assert 'stopped, step 1' in status.describe(tmp_path)[0]
    saved = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit())
    assert saved[-1] in (11, 12)
    assert pretrain(tmp_path, corpus, rows) == 0
    _assert_same_run(tmp_path, pretrained)


@pytest.mark.parametrize(
    'mesh', slow_after(1, ['mesh.strategy=fsdp_tp mesh.fsdp=4 mesh.tensor=2', 'mesh.strategy=fsdp'])
)
def test_resuming_on_another_mesh_differs_only_by_rounding(tmp_path, corpus, rows, pretrained, mesh):
    shutil.copytree(pretrained, tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '20')
    assert pretrain(tmp_path / 'run', corpus, rows, *mesh.split()) == 0
    left, right = checkpoint_arrays(tmp_path / 'run', 20), checkpoint_arrays(pretrained, 20)
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_resuming_with_the_hardware_generator_is_bitwise_equal(tmp_path, corpus, rows):
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    assert pretrain(whole, corpus, rows, 'train.prng=rbg') == 0
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / 'checkpoints' / '20')
    with pytest.raises(UserError, match="train.prng was 'rbg', is 'threefry'"):
        pretrain(resumed, corpus, rows)
    assert pretrain(resumed, corpus, rows, 'train.prng=rbg') == 0
    _assert_same_run(resumed, whole)


@pytest.mark.parametrize('item', ['params', 'training', 'metadata'])
def test_damaged_newest_checkpoint_is_skipped(tmp_path, corpus, rows, pretrained, caplog, item):
    shutil.copytree(pretrained, tmp_path / 'run')
    folder = tmp_path / 'run' / 'checkpoints' / '20' / item
    files = [f for f in folder.rglob('*') if f.is_file() and f.stat().st_size > 0]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        assert pretrain(tmp_path / 'run', corpus, rows) == 0
    assert 'skipping damaged checkpoint 20' in caplog.text
    _assert_same_run(tmp_path / 'run', pretrained)
    assert len(list((tmp_path / 'run' / 'checkpoints').glob('damaged-20-*'))) == 1


def test_no_readable_checkpoint_is_an_error(tmp_path, corpus, rows, pretrained):
    shutil.copytree(pretrained, tmp_path / 'run')
    for file in (tmp_path / 'run' / 'checkpoints').rglob('*'):
        if file.is_file():
            file.write_bytes(b'')
    before = sorted((tmp_path / 'run' / 'checkpoints').rglob('*'))
    for _ in range(2):
        with pytest.raises(UserError, match='None of the checkpoints'):
            pretrain(tmp_path / 'run', corpus, rows)
    assert sorted((tmp_path / 'run' / 'checkpoints').rglob('*')) == before
    assert metrics.read(tmp_path / 'run') == metrics.read(pretrained)


def test_checkpoints_of_another_model_are_kept(tmp_path, corpus, rows, pretrained):
    shutil.copytree(pretrained, tmp_path / 'run')
    (tmp_path / 'run' / 'config.json').unlink()
    with pytest.raises(
        UserError, match=r'is a checkpoint of another model \(bert/.* in the checkpoint, .* in the config\)'
    ):
        pretrain(tmp_path / 'run', corpus, rows, 'model.width=16')
    assert sorted(p.name for p in (tmp_path / 'run' / 'checkpoints').iterdir()) == ['15', '18', '20']


def test_unknown_best_metric_is_reported_before_training(
    tmp_path, corpus, rows, pretrained, labeled, monkeypatch
):
    with pytest.raises(UserError, match=r"best_metric='mlm_los' is not a score: did you mean 'mlm_loss'"):
        pretrain(tmp_path / 'a', corpus, rows, 'checkpoint.best_metric=mlm_los')
    with pytest.raises(UserError, match=r"best_metric='f2' is not a score"):
        finetune(tmp_path / 'b', pretrained, labeled, 'checkpoint.best_metric=f2')
    assert not [*tmp_path.glob('*/metrics.jsonl')]
    monkeypatch.setattr(loop, '_run', lambda *_: 0)
    assert finetune(tmp_path / 'b', pretrained, labeled, 'checkpoint.best_metric=f1_macro') == 0


@pytest.mark.parametrize('steps', ['0', '0.5'])
def test_run_without_steps_is_rejected(tmp_path, corpus, rows, steps):
    with pytest.raises(UserError, match=r'train\.steps=.* is less than one step'):
        pretrain(tmp_path, corpus, rows, f'train.steps={steps}')


@pytest.mark.parametrize('rate', ['1e30', '1e38'])
def test_parameters_that_are_not_finite_are_not_saved(tmp_path, corpus, rows, rate):
    settings = (f'optim.learning_rate={rate}', 'optim.warmup=0', 'optim.clip_norm=0.0', 'checkpoint.every=1')
    with pytest.raises(
        UserError, match=r'(evaluation loss is|parameter is not).*No checkpoint was saved yet'
    ):
        pretrain(tmp_path, corpus, rows, *settings, 'train.eval_every=1')


def test_loss_that_is_not_finite_stops_training_and_keeps_checkpoint(tmp_path, corpus, rows):
    with pytest.raises(UserError, match=r'(loss|grad norm) is (nan|inf).*checkpoint of step \d+ .* intact'):
        pretrain(
            tmp_path, corpus, rows, 'optim.learning_rate=1e30', 'optim.clip_norm=0.0', 'checkpoint.every=1'
        )
    saved = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir())
    for array in checkpoint_arrays(tmp_path, saved[-1]).values():
        assert np.isfinite(array).all()


def test_newest_and_best_checkpoints_are_kept(tmp_path, corpus, rows, caplog):
    caplog.set_level(logging.INFO)
    settings = (
        'checkpoint.best_metric=mlm_loss',
        'checkpoint.best_mode=max',  # so that the best checkpoint is not among the newest
        'checkpoint.keep=2',
        'checkpoint.every=2',
        'train.eval_every=2',
    )
    pretrain(tmp_path, corpus, rows, *settings)

    def saved_steps():
        return {int(p.name) for p in (tmp_path / 'checkpoints').iterdir()}

    saved = saved_steps()
    scores = {
        line['step']: line['eval/mlm_loss'] for line in metric_lines(tmp_path) if 'eval/mlm_loss' in line
    }
    best = max(scores, key=scores.__getitem__)
    assert best < 18
    assert saved == {best, 18, 20}
    folder = tmp_path / 'checkpoints'
    assert caplog.messages[-1] == f'checkpoint: {folder}/20, best mlm_loss: {folder}/{best}'
    shutil.rmtree(tmp_path / 'checkpoints' / '20')
    pretrain(tmp_path, corpus, rows, *settings)  # resumes from step 18
    assert saved_steps() == saved


def test_resuming_in_second_phase(tmp_path, corpus, rows):
    phases = 'train.phases=((6, 32, 16), (4, 64, 8))'
    uninterrupted, resumed = tmp_path / 'whole', tmp_path / 'parts'
    assert pretrain(uninterrupted, corpus, rows, phases) == 0
    shutil.copytree(uninterrupted, resumed)
    for step in ('9', '10'):
        shutil.rmtree(resumed / 'checkpoints' / step)
    assert pretrain(resumed, corpus, rows, phases) == 0
    assert metric_lines(resumed) == metric_lines(uninterrupted)
    assert metric_lines(uninterrupted)[-1]['step'] == 10
    manifest = json.loads((rows / 'length64' / 'manifest.json').read_text())
    assert manifest['length'] == 64
