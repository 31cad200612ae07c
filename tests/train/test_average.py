"""The average of checkpoints equals NumPy's mean and is a checkpoint like any other."""

import json
import re
import shutil

import numpy as np
import pytest

from bert_jax.train import checkpoint, load
from tests.runs import checkpoint_arrays, pretrain, run_in_process


def run(*arguments):
    return run_in_process('bert_jax.bin.average', *arguments)


def saved_params(workdir, step):
    arrays = checkpoint_arrays(workdir, step)
    return {name: value for name, value in arrays.items() if name.startswith('params')}


def find(params, name):
    return next(value for key, value in params.items() if f"'{name}'" in key)


@pytest.mark.parametrize('last', [2, 3])
def test_mean_of_the_last_checkpoints_equals_numpy(tmp_path, pretrained, last):
    done = run(f'--from={pretrained}', f'--last={last}', f'--to={tmp_path / "mean"}')
    assert done.returncode == 0, done.stderr
    steps = (15, 18, 20)[-last:]
    used = [pretrained / 'checkpoints' / str(step) for step in steps]
    assert (
        done.stdout.strip() == f'{tmp_path / "mean"}: mean of {last} checkpoints: {", ".join(map(str, used))}'
    )
    found, metadata = checkpoint.read_metadata(tmp_path / 'mean')
    assert found.name == '20'
    assert metadata['averaged'] == [*map(str, used)]
    saved = [saved_params(pretrained, step) for step in steps]
    params = load.read(tmp_path / 'mean').params
    assert len(params) == len(saved[0])
    for name, value in params.items():
        arrays = [find(of_step, name) for of_step in saved]
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, np.mean(arrays, axis=0), rtol=1e-6, atol=1e-8, err_msg=name)
        if name.endswith('kernel'):
            assert abs(arrays[0] - arrays[-1]).max() > 1e-6, name


def test_an_average_can_be_evaluated_and_trained_further(tmp_path, corpus, rows, pretrained, labeled):
    assert run(f'--from={pretrained}', f'--to={tmp_path / "mean"}').returncode == 0
    words = run_in_process('bert_jax.bin.fill_mask', f'--checkpoint={tmp_path / "mean"}', 'the [MASK] dog')
    assert words.returncode == 0, words.stderr
    settings = (
        f'init.checkpoint={tmp_path / "mean"}',
        'train.steps=2',
        'optim.learning_rate=0.0',
        'optim.warmup=0',
    )
    assert pretrain(tmp_path / 'more', corpus, tmp_path / 'rows', *settings) == 0
    before, after = (load.read(tmp_path / name).params for name in ('mean', 'more'))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


@pytest.mark.slow
def test_runs_with_stacked_layers_are_averaged_with_others(tmp_path, corpus, rows):
    for scan in (False, True):
        settings = ('model.layers=4', f'model.scan_layers={scan}', 'train.steps=3', 'train.eval_every=0')
        assert pretrain(tmp_path / str(scan), corpus, rows, *settings) == 0
    sources = [f'--from={tmp_path / str(scan)}' for scan in (False, True)]
    assert run(*sources, f'--to={tmp_path / "mean"}').returncode == 0
    mean, apart = (load.read(tmp_path / name).params for name in ('mean', 'False'))
    assert mean.keys() == apart.keys()
    for name, value in apart.items():
        np.testing.assert_allclose(mean[name], value, atol=1e-5, err_msg=name)


def change_metadata(step, change):
    file = step / 'metadata' / 'metadata'
    about = json.loads(file.read_text())
    del about['seal']
    change(about)
    file.write_text(json.dumps(checkpoint._seal(about)))


def other_width(about):
    about['config']['model']['width'] = 64


def other_tokenizer(about):
    about['tokenizer']['version'] = 'other'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (other_width, r"have different models (model.width was 64, is 32). Average checkpoints of one model."),
        (other_tokenizer, 'have different tokenizers. Average checkpoints of one tokenizer.'),
    ],
)  # fmt: skip
def test_other_models_and_tokenizers_are_refused(tmp_path, pretrained, change, message):
    shutil.copytree(pretrained, tmp_path / 'run')
    change_metadata(tmp_path / 'run' / 'checkpoints' / '15', change)
    done = run(f'--from={tmp_path / "run"}', f'--to={tmp_path / "mean"}')
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / 'mean').exists()


def test_parameters_of_another_shape_are_refused(tmp_path, corpus, rows, pretrained):
    settings = ('task.sentence_objective=none', 'train.steps=1', 'optim.warmup=0')
    assert pretrain(tmp_path / 'mlm', corpus, tmp_path / 'rows', *settings) == 0
    newest = pretrained / 'checkpoints' / '20'
    done = run(f'--from={newest}', f'--from={tmp_path / "mlm"}', f'--to={tmp_path / "mean"}')
    assert done.returncode == 1
    assert 'bert/pooler/bias is (32,) in' in done.stderr
    assert 'but missing in' in done.stderr
    assert not (tmp_path / 'mean').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--from={run}', '--last=4'), "has 3 checkpoints (15, 18, 20), fewer than --last=4. Lower --last, or train"),
        (('--from={run}', '--last=1'), "20' is the only checkpoint. Pass the --workdir of a run that keeps several."),
        (('--from={run}/missing',), 'There is no checkpoint in'),
        (('--from={run}', '--to={run}'), 'already contains a checkpoint. Choose another --to.'),
        (('--from={run}', '--last=-1'), '--last'),
        (('--from=',), '--from is empty; set it to a value'),
    ],
)  # fmt: skip
def test_bad_flags_end_in_one_message(tmp_path, pretrained, arguments, message):
    arguments = [a.format(run=pretrained) for a in (f'--to={tmp_path / "mean"}', *arguments)]
    done = run(*arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_checkpoint_is_not_averaged_with_itself(tmp_path, pretrained):
    step = pretrained / 'checkpoints' / '20'
    done = run(f'--from={step}', f'--from={pretrained}', f'--to={tmp_path / "mean"}')
    assert done.returncode
    assert 'overlap. Pass each run or step once.' in done.stderr


def test_an_incomplete_checkpoint_is_named(tmp_path, pretrained, monkeypatch):
    def fail(step):
        raise AttributeError('as Orbax does if the manifest is missing')

    monkeypatch.setattr(checkpoint, 'read_param_shapes', fail)
    done = run(f'--from={pretrained}', f'--to={tmp_path / "mean"}')
    assert done.returncode
    assert re.search(
        r"^error: The parameters in '.*/15' are damaged or incomplete\. Use another",
        done.stderr,
        re.MULTILINE,
    )
    assert not (tmp_path / 'mean').exists()
