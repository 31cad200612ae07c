"""Sweeps: settings from grids and configs, seeds, resumption, and the table of scores."""

import json

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.experiments import jobs, sweeps
from bert_jax.train import experiment
from tests.runs import TINY, jobs_in_process, run_in_process

SWEEP = 'bert_jax.bin.sweep'
CONFIG = """
import importlib.util
spec = importlib.util.spec_from_file_location('tiny', {tiny!r})
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


def get_config():
    config = tiny.get_config('classify')
    config.data.source = {source!r}
    config.init = dict(checkpoint={checkpoint!r})
    config.train.steps = 8
    config.train.eval_every = 0
    config.checkpoint = dict(best_metric='accuracy', every=1.0)
    return config


def sweep(add):
    for rate in (1e-3, 1e-2):
        add({{'optim.learning_rate': rate, 'train.batch_size': 16}})
    add({{'optim.learning_rate': 1e9, 'train.batch_size': 16, 'optim.clip_norm': 0.0}})
"""


ACCURACY = sweeps.Objective('accuracy', False)


def write_run(job, accuracy, **scores):
    """Write the working directory of a finished run with these scores; without an evaluation if the accuracy is None."""
    job.folder.mkdir(parents=True)
    sections = ('data', 'model', 'train', 'init', 'checkpoint')
    (job.folder / 'config.json').write_text(json.dumps({name: {} for name in sections}))
    lines = [{'step': 1, 'loss': 1.0}]
    if accuracy is not None:
        loss = 1 - accuracy
        scores = scores or {'loss': loss, 'cross_entropy': loss, 'accuracy': accuracy, 'majority': 0.5}
        lines.append({'step': 2} | {f'eval/{k}': v for k, v in scores.items()})
        job.mark_started()
        job.mark_finished()
    (job.folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def write_sweep(workdir):
    """Write a sweep over two learning rates with three seeds, one of which failed."""
    settings = sweeps.grid({'optim.learning_rate': (1e-4, 3e-4)})
    sweep = sweeps.trials(f'{TINY}:classify', workdir, settings, 3, ())
    for trial, accuracies in zip(sweep, ((0.6, 0.8, 0.5), (0.9, None, 0.7)), strict=True):
        for job, accuracy in zip(trial.jobs, accuracies, strict=True):
            write_run(job, accuracy)
    return sweep, {sweep[1].jobs[1].folder: 'error: The loss is NaN.'}


def test_summary_has_statistics_and_failed_runs(tmp_path):
    sweep, failures = write_sweep(tmp_path)
    summary = sweeps.summarize(sweep, ACCURACY, failures)
    first, second = summary['trials']
    assert first['settings'] == {'optim.learning_rate': 1e-4}
    assert first['mean'] == pytest.approx(1.9 / 3)
    assert first['median'] == 0.6
    assert first['std'] == pytest.approx(0.1527525)
    assert (first['n'], first['failed'], first['degenerate']) == (3, 0, 1)  # 0.5 is the majority
    assert second['scores'] == [0.9, None, 0.7]
    assert (second['n'], second['failed'], second['degenerate']) == (2, 1, 0)
    assert summary['best'] == 1
    assert sweeps.summarize(sweep, sweeps.Objective('loss', True), failures)['best'] == 1, (
        'the lowest loss is best'
    )


def test_table_shows_the_best_trial_first(tmp_path):
    sweep, failures = write_sweep(tmp_path)
    summary = sweeps.summarize(sweep, ACCURACY, failures)
    header, best, other = sweeps.table(sweep, summary, ACCURACY, failures)
    assert header == ['', 'optim.learning_rate', 'accuracy', 'n', 'state', 'step']
    assert best[:4] == ['*', '0.0003', '0.8000 ± 0.1414', '2']
    assert '1 failed [1]' in best[4]
    assert other[:4] == ['', '0.0001', '0.6333 ± 0.1528', '3']
    assert other[4].endswith(', 1 no better than the majority class')
    assert jobs.footnotes(failures) == ['[1] error: The loss is NaN.']


def test_numbers_are_in_columns_of_their_own(tmp_path):
    sweep, failures = write_sweep(tmp_path)
    header, best, other = sweeps.numbers(sweeps.summarize(sweep, ACCURACY, failures), ACCURACY)
    assert header == ['optim.learning_rate', 'score', 'mean', 'std', 'median', 'n', 'failed', 'degenerate']
    assert best == [
        3e-4,
        'accuracy',
        pytest.approx(0.8),
        pytest.approx(0.1414214),
        pytest.approx(0.8),
        2,
        1,
        0,
    ]
    assert other[:3] == [1e-4, 'accuracy', pytest.approx(1.9 / 3)]


def test_score_that_not_all_runs_have_is_an_error(tmp_path):
    sweep = sweeps.trials(f'{TINY}:classify', tmp_path, [{}], 2, ())
    write_run(sweep[0].jobs[0], 0.7)
    write_run(sweep[0].jobs[1], 0.7, loss=0.5, f1=0.5)
    with pytest.raises(UserError, match=r"Not all runs have the score 'f1'. Scores of all runs: loss\."):
        sweeps.objective(sweep, 'f1')


def make_objectives(workdir, *names):
    """A finished sweep of two objectives, whose losses are the sums of these terms."""
    settings = sweeps.grid({'task.sentence_objective': ('random', 'none')})
    sweep = sweeps.trials(f'{TINY}:pretrain', workdir, settings, 1, ())
    for trial, terms in zip(sweep, names, strict=True):
        write_run(trial.jobs[0], 0.1, loss=len(terms), **dict.fromkeys(terms, 1.0), lm_accuracy=0.1)
    return sweep


def test_losses_with_different_terms_are_not_ranked(tmp_path):
    sweep = make_objectives(tmp_path / 'a', ('mlm_loss', 'next_loss'), ('mlm_loss',))
    found = sweeps.objective(sweep)
    assert found[:2] == ('mlm_loss', True)
    assert (
        'The losses are not compared, since they are mlm_loss + next_loss or mlm_loss.' in found.description
    )
    with pytest.raises(
        UserError, match=r'cannot be compared, .* Pass .* --score with one of mlm_loss, lm_accuracy'
    ):
        sweeps.objective(sweep, 'loss')
    assert sweeps.objective(sweep, 'lm_accuracy')[:2] == ('lm_accuracy', False)
    sweep = make_objectives(tmp_path / 'b', ('lm_loss',), ('mlm_loss',))
    with pytest.raises(UserError, match='are lm_loss or mlm_loss.'):
        sweeps.objective(sweep, 'loss')
    same = make_objectives(tmp_path / 'c', ('mlm_loss',), ('mlm_loss',))
    assert sweeps.objective(same, 'loss') == ('loss', True, '')


def test_baseline_shows_the_values_of_its_config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        f'import runpy\ndef get_config(): return runpy.run_path({str(TINY)!r})["get_config"]("pretrain")\n'
        'def sweep(add):\n  add({})\n  add({"optim.learning_rate": 0.5})\n  add({"task.mask_rate": 0.4})\n'
    )
    sweep = sweeps.trials(str(path), tmp_path, sweeps.from_config(str(path)), 1, ())
    assert sweep[0].jobs[0].folder == tmp_path / 'baseline/seed0'
    summary = sweeps.summarize(sweep, sweeps.Objective('loss', True), {})
    lines = sweeps.table(sweep, summary, sweeps.Objective('loss', True), {})
    assert [line[1:3] for line in lines] == [
        ['optim.learning_rate', 'task.mask_rate'], ['0.001', '0.15'], ['0.5', '0.15'], ['0.001', '0.4']
    ]  # fmt: skip


def test_recipe_of_the_paper_has_eighteen_settings():
    assert len({sweeps.name(s) for s in sweeps.grid(sweeps.RECIPE)}) == 18
    assert sweeps.grid({}) == [{}]


def test_names_depend_on_the_settings_only():
    assert sweeps.name({'optim.learning_rate': 1e-4, 'data.limit': 9}) == 'limit=9,learning_rate=0.0001'
    assert sweeps.name({'task.seed': 0, 'data.seed': 1}) == 'data.seed=1,task.seed=0'
    assert sweeps.name({}) == 'baseline'
    long = sweeps.name({'data.source': 'a/b c.jsonl'})
    assert long.startswith('source=a_b_c.jsonl-')
    assert long != sweeps.name({'data.source': 'a_b c.jsonl'})
    assert sweeps.name({'data.source': 'a/b c.jsonl'}) == long


@pytest.mark.parametrize(
    ('body', 'message'),
    [
        ('def sweep(add): pass', 'adds no setting'),
        ('def sweep(): pass', 'failed .*takes 0 positional arguments'),
        ('def sweep(add):\n  add("text")', 'failed'),
        ('def sweep(add):\n  add({"a.b": 1})\n  add({"a.b": 1})', 'Add each setting once'),
        ('def sweep(add):\n  add({"train.seed": 1})', 'pass --seeds=N'),
    ],
)
def test_invalid_sweep_function_is_an_error(tmp_path, body, message):
    (tmp_path / 'config.py').write_text(body)
    with pytest.raises(UserError, match=message):
        sweeps.from_config(str(tmp_path / 'config.py'))


def test_config_without_sweep_function_is_one_setting(tmp_path):
    (tmp_path / 'config.py').write_text('')
    assert sweeps.from_config(str(tmp_path / 'config.py')) == [{}]


def test_values_keep_their_type(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        f'import numpy as np, runpy\ndef get_config(): return runpy.run_path({str(TINY)!r})["get_config"]("pretrain")\n'
        'def sweep(add): add({"model.name": "bert", "train.steps": "7 epochs", "optim.learning_rate": np.float64(0.5)})\n'
    )
    (trial,) = sweeps.trials(str(path), tmp_path, sweeps.from_config(str(path)), 1, ())
    config = experiment.read(trial.jobs[0].config, trial.jobs[0].settings)
    assert (config.model.name, config.train.steps, config.optim.learning_rate) == ('bert', '7 epochs', 0.5)
    assert type(trial.settings['optim.learning_rate']) is not np.float64  # so that JSON can store any number
    assert sweeps.parse_values('5e-5,16,true,2 epochs') == (5e-5, 16, True, '2 epochs')


def test_best_metric_of_the_config_is_compared(tmp_path):
    for name, lowest in (('accuracy', False), ('loss', True), ('', True)):
        sweep = sweeps.trials(
            f'{TINY}:classify', tmp_path, [{}], 1, ['data.source=x', f'checkpoint.best_metric={name}']
        )
        assert sweeps.objective(sweep)[:2] == (name or 'loss', lowest)
    assert sweeps.objective(sweep, 'f1')[:2] == ('f1', False)
    write_run(sweep[0].jobs[0], 0.7)
    assert sweeps.objective(sweep)[:2] == ('accuracy', False), 'as in reports'
    settings = ['checkpoint.best_metric=f1', 'checkpoint.best_mode=min']
    sweep = sweeps.trials(f'{TINY}:classify', tmp_path, [{}], 1, ['data.source=x', *settings])
    assert sweeps.objective(sweep)[:2] == ('f1', True)
    assert sweeps.objective(sweep, 'accuracy')[:2] == ('accuracy', False)


def test_sweep_runs_what_is_missing_and_shows_the_best(tmp_path, labeled, pretrained, run_jobs_in_process):
    config, workdir = tmp_path / 'config.py', tmp_path / 'runs'
    config.write_text(CONFIG.format(tiny=str(TINY), source=labeled, checkpoint=str(pretrained)))
    words = SWEEP, f'--config={config}', f'--workdir={workdir}'
    printed = run_in_process(*words, '--print').stdout.splitlines()
    assert len(printed) == 3
    assert not workdir.exists()
    done = run_in_process(*words, '--jobs=2')
    assert done.returncode == 1
    assert 'failed' in done.stderr  # only the third
    assert 'optim.learning_rate' in done.stderr
    table = [line.split(',') for line in (workdir / 'sweep.csv').read_text().splitlines()]
    keys = ['optim.learning_rate', 'train.batch_size', 'optim.clip_norm']
    assert table[0] == [*keys, 'score', 'mean', 'std', 'median', 'n', 'failed', 'degenerate']
    assert [(line[3], line[5], line[7], line[8]) for line in table[1:]] == [
        ('accuracy', '', '1', '0'),
        ('accuracy', '', '1', '0'),
        ('accuracy', '', '0', '1'),
    ]
    assert done.stdout.startswith(
        'accuracy: mean ± sample standard deviation over n seeds; higher is better.'
    )
    assert [line.split()[-2:] for line in done.stdout.splitlines()[-2:-1]] == [['failed', '[1]']]
    scores = [float(line[4]) for line in table[1:] if line[4]]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert '[1] error: ' in (workdir / 'sweep.md').read_text()
    assert (workdir / 'sweep.png').stat().st_size > 1000
    times = {p: p.stat().st_mtime for p in workdir.rglob('done.json')}
    assert len(times) == 2
    again = run_in_process(*words)
    assert again.returncode == 1
    assert len(run_jobs_in_process) == 4, 'only the failed run is started again'
    assert {p: p.stat().st_mtime for p in workdir.rglob('done.json')} == times
    assert run_in_process(*words, '--list').stdout.count('8/8') == 2


@pytest.fixture
def run_jobs_in_process():
    """Runs jobs in this process; a list of what each has written to stderr."""
    with jobs_in_process() as outputs:
        yield outputs


def run_sweep(workdir, pretrained, labeled, *more):
    return run_in_process(
        SWEEP,
        f'--config={TINY}:classify',
        f'--workdir={workdir}',
        f'--config.data.source={labeled}',
        f'--config.init.checkpoint={pretrained}',
        '--config.train.steps=4',
        *more,
    )


def read_trials(workdir):
    return json.loads((workdir / 'sweep.json').read_text())['trials']


def test_grid_runs_and_resumes(tmp_path, pretrained, labeled, run_jobs_in_process):
    words = (
        SWEEP,
        f'--config={TINY}:classify',
        f'--workdir={tmp_path}',
        '--over=optim.learning_rate=0.01,0.0',
        '--score=accuracy',
        f'--config.data.source={labeled}',
        f'--config.init.checkpoint={pretrained}',
        '--config.train.steps=30',
    )
    done = run_in_process(*words)
    assert done.returncode == 0, done.stderr
    trials = read_trials(tmp_path)
    assert [t['settings'] for t in trials] == [{'optim.learning_rate': v} for v in (0.01, 0.0)]
    assert json.loads((tmp_path / 'sweep.json').read_text())['best'] == 0
    assert trials[0]['scores'][0] > trials[1]['scores'][0]
    again = run_in_process(*words)
    assert again.returncode == 0, again.stderr
    assert len(run_jobs_in_process) == 2
    assert again.stdout == done.stdout


def test_invalid_value_is_an_error_before_any_run(tmp_path, pretrained, labeled, run_jobs_in_process):
    done = run_sweep(tmp_path, pretrained, labeled, '--over=optim.learning_rate=0.01,-1')
    assert done.returncode == 1
    assert 'optim.learning_rate=-1.0 must be at least 0' in done.stderr
    assert not run_jobs_in_process


@pytest.mark.parametrize('word', ['--over=train.seed=3,4', '--config.train.seed=3'])
def test_seed_is_not_a_setting(tmp_path, pretrained, labeled, run_jobs_in_process, word):
    done = run_sweep(tmp_path, pretrained, labeled, word)
    assert done.returncode == 2
    assert 'write --seeds=N' in done.stderr
    assert not run_jobs_in_process


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--over=train.steps'], 'has no values'),
        (['--seeds=0'], '--seeds=0 must be at least 1'),
        (['--jobs=-1'], '--jobs=-1 must be at least 0'),
        (['--over=train.steps=1', '--over=train.steps=2'], 'names a key twice'),
    ],
)
def test_invalid_flags_are_usage_errors(tmp_path, pretrained, labeled, run_jobs_in_process, words, message):
    done = run_sweep(tmp_path, pretrained, labeled, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not run_jobs_in_process


def test_repeated_value_is_an_error(tmp_path, pretrained, labeled, run_jobs_in_process):
    done = run_sweep(tmp_path, pretrained, labeled, '--over=optim.learning_rate=0.01,0.01')
    assert done.returncode == 1
    assert 'contains a duplicate value' in done.stderr
    assert not run_jobs_in_process


def test_unknown_score_loses_no_run(tmp_path, pretrained, labeled, run_jobs_in_process):
    done = run_sweep(tmp_path, pretrained, labeled, '--score=f2')
    assert done.returncode == 1
    assert (
        "Not all runs have the score 'f2'. Scores of all runs: loss, cross_entropy, accuracy" in done.stderr
    )
    assert run_sweep(tmp_path, pretrained, labeled, '--score=loss').returncode == 0
    assert run_sweep(tmp_path, pretrained, labeled, '--score=f2', '--seeds=2').returncode == 1
    assert len(run_jobs_in_process) == 1


def test_runs_of_another_config_are_run_again(tmp_path, pretrained, labeled, run_jobs_in_process):
    loss = '--score=loss'
    assert run_sweep(tmp_path, pretrained, labeled, loss).returncode == 0
    (before,) = read_trials(tmp_path)
    assert before['n'] == 1
    other = '--config.train.batch_size=8'
    change = 'train.batch_size was 16, is 8'
    listed = run_sweep(tmp_path, pretrained, labeled, other, '--list').stdout.splitlines()
    assert listed[0] == f'{tmp_path}/baseline/seed0: {change}'
    assert listed[-1].split() == ['0', 'changed']
    done = run_sweep(tmp_path, pretrained, labeled, other, loss)
    assert done.returncode == 0, done.stderr
    assert f'{tmp_path}/baseline/seed0: {change}; running it again' in done.stderr
    assert len(run_jobs_in_process) == 2
    assert 'resuming' not in run_jobs_in_process[-1]
    (after,) = read_trials(tmp_path)
    assert (after['n'], after['scores'] == before['scores']) == (1, False)
    config = json.loads((tmp_path / 'baseline/seed0.earlier1/config.json').read_text())
    assert config['train']['batch_size'] == 16
    assert run_in_process('bert_jax.bin.status', tmp_path).stdout.count('seed0') == 1


def test_diverging_runs_leave_the_others(tmp_path, pretrained, labeled, run_jobs_in_process):
    # Gradients overflow float32.
    done = run_sweep(
        tmp_path, pretrained, labeled, '--over=optim.learning_rate=1e38,0.01', '--config.train.steps=9'
    )
    assert done.returncode == 1
    assert 'learning_rate=1e+38/seed0: error: ' in done.stderr
    assert 'optim.learning_rate' in done.stderr
    first, second = read_trials(tmp_path)
    assert (first['n'], first['failed']) == (0, 1)
    assert second['n'] == 1


def test_common_reason_is_reported_once(tmp_path, run_jobs_in_process):
    words = (f'--config={TINY}:classify', f'--workdir={tmp_path}', '--seeds=2')
    done = run_in_process(SWEEP, *words)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert 'seed0 and 1 more: error: ' in done.stderr
    assert done.stderr.count('tokenizer.path') == 1
