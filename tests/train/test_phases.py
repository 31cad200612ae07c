"""Phases with other batch sizes and settings: resuming is bitwise, and the settings take effect where they should."""

import json
import logging
import shutil

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.tasks import mlm
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import load
from bert_jax.train.phases import Phase, duration_units, tokens_until
from tests.runs import TINY, checkpoint_arrays, hidden_states, metric_lines, pretrain, slow_after

EACH_STEP = ('checkpoint.every=1', 'checkpoint.keep=9', 'train.eval_every=2')
ROTARY = ('model.rope_base=100.0', 'optim.warmup=0')
CHANGES = {
    'batch': ('train.phases=((3, 32, 8), (3, 32, 16))',),
    'muon': ('optim.name=muon', 'optim.schedule=wsd', 'optim.decay=3', 'optim.decay_shape=1-sqrt', 'train.steps=6'),
    'mask rate': (
        'train.phases=((3, 32, 8, "task.mask_rate=0.3"), (3, 32, 8, "task.mask_rate=0.15", "task.mask_fraction=0.9"))',
    ),
    'rotary base': (*ROTARY, 'train.phases=((3, 32, 8), (3, 64, 8, "model.rope_base=1000.0"))'),
    'linear mask rate': ('task.mask_rate=0.4', 'task.final_mask_rate=0.1', 'train.steps=6'),
    'stable_adamw': ('optim.name=stable_adamw', 'optim.schedule=wsd', 'optim.decay=3', 'train.steps=6'),
}  # fmt: skip


def resume(workdir, copy, step, corpus, rows, *settings):
    """Resume a copy of a run from the checkpoint of `step`, as if it had been killed after it."""
    shutil.copytree(workdir, copy)
    for folder in (copy / 'checkpoints').iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    assert pretrain(copy, corpus, rows, *EACH_STEP, *settings) == 0


def assert_same(a, b, step=6):
    assert metric_lines(a) == metric_lines(b)
    left, right = checkpoint_arrays(a, step), checkpoint_arrays(b, step)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize('change', slow_after(2, CHANGES))
def test_resuming_around_a_change_is_bitwise_equal(tmp_path, corpus, rows, change):
    settings = CHANGES[change]
    assert pretrain(tmp_path / 'whole', corpus, rows, *EACH_STEP, *settings) == 0
    # The last step before a change, and one before it; a decay begins at step 3.
    for step in (2, 3) if 'phases' in str(settings) else (4,):
        resume(tmp_path / 'whole', tmp_path / str(step), step, corpus, rows, *settings)
        assert_same(tmp_path / str(step), tmp_path / 'whole')


@pytest.fixture(scope='module')
def two_corpora(tmp_path_factory, corpus):
    """Two corpora, of which the first is much smaller, and a folder for their rows."""
    folder = tmp_path_factory.mktemp('corpora')
    lines = corpus.read_text().splitlines(keepends=True)
    (folder / 'small.txt').write_text(''.join(lines[: len(lines) // 6]))
    return f'small={folder}/small.txt', f'large={corpus}', folder


def test_sampling_exponent_changes_between_phases(tmp_path, corpus, two_corpora, caplog):
    *sources, folder = two_corpora
    settings = (
        f'data.sources={tuple(sources)!r}',
        'train.phases=((3, 32, 16, "data.sampling_exponent=0.01"), (3, 32, 16))',
    )
    caplog.set_level(logging.INFO)
    assert pretrain(tmp_path / 'whole', corpus, folder / 'rows', *EACH_STEP, *settings) == 0
    assert 'the phases compile 1 train steps' in caplog.messages
    scores = [line for line in metric_lines(tmp_path / 'whole') if 'eval/mlm_loss/training_mixture' in line]
    by_step = {line['step']: line for line in scores}

    def share_of_small(line):
        small, large, mixed = (
            line[f'eval/mlm_loss/{name}'] for name in ('small', 'large', 'training_mixture')
        )
        return (mixed - large) / (small - large)

    assert share_of_small(by_step[2]) == pytest.approx(0.5, abs=0.02)  # nearly uniform over the corpora
    assert share_of_small(by_step[6]) < 0.3
    resume(tmp_path / 'whole', tmp_path / 'resumed', 2, corpus, folder / 'rows', *settings)
    assert_same(tmp_path / 'resumed', tmp_path / 'whole')


def test_checkpoints_have_the_settings_of_their_phase(tmp_path, corpus, rows, caplog):
    caplog.set_level(logging.INFO)
    settings = CHANGES['rotary base']
    assert pretrain(tmp_path / 'run', corpus, rows, *EACH_STEP, *settings) == 0
    assert 'steps 0 to 3: 8 rows of 32 tokens' in caplog.messages
    assert 'steps 3 to 6: 8 rows of 64 tokens, model.rope_base=1000.0' in caplog.messages
    assert 'the phases compile 2 train steps' in caplog.messages
    assert 'step 3: a phase of 8 rows of 64 tokens, model.rope_base=1000.0 begins' in caplog.messages
    before, after = (load.read(tmp_path / 'run' / 'checkpoints' / str(step)) for step in (3, 4))
    assert (before.experiment.model.rope_base, after.experiment.model.rope_base) == (100, 1000)
    tokens = np.arange(5, 37)[None]
    assert abs(hidden_states(before, tokens) - hidden_states(after, tokens)).max() > 1e-3


def test_context_extension_in_a_second_run(tmp_path, corpus, rows):
    """A run that starts from a checkpoint changes the rotary base, keeps the weights and reads longer rows."""
    first = ('train.steps=3', 'data.length=16', *ROTARY)
    assert pretrain(tmp_path / 'short', corpus, rows, *EACH_STEP, *first) == 0
    phases = 'train.phases=((2, 128, 8, "model.rope_base=1600.0"),)'
    second = (f'init.checkpoint={tmp_path / "short"}', phases, 'optim.learning_rate=0.0', 'optim.warmup=0')
    assert pretrain(tmp_path / 'long', corpus, tmp_path / 'long_rows', *EACH_STEP, *second) == 0
    short, long = checkpoint_arrays(tmp_path / 'short', 3), checkpoint_arrays(tmp_path / 'long', 2)
    params = [name for name in short if name.startswith('params')]
    assert params
    for name in params:
        np.testing.assert_array_equal(short[name], long[name], err_msg=name)
    assert all(
        np.isfinite(line['eval/loss']) for line in metric_lines(tmp_path / 'long') if 'eval/loss' in line
    )
    extended = load.read(tmp_path / 'long')
    assert extended.experiment.model.rope_base == 1600
    states = hidden_states(extended, np.random.default_rng(0).integers(5, 100, (1, 128)))
    assert np.isfinite(states).all()


def test_evaluation_masks_15_percent_whatever_the_training_rate(tmp_path, corpus, rows):
    """With a learning rate of 0, evaluations differ only by their masks."""
    found = {}
    for rate in (0.15, 0.4):
        settings = (f'task.mask_rate={rate}', 'optim.learning_rate=0.0', 'train.steps=3')
        assert pretrain(tmp_path / str(rate), corpus, rows, *EACH_STEP, *settings) == 0
        lines = metric_lines(tmp_path / str(rate))
        found[rate] = [line['eval/mlm_loss'] for line in lines if 'eval/mlm_loss' in line]
    assert found[0.15] == found[0.4]


def test_linear_mask_rate(tokenizer):
    task = mlm.Task(mlm.Config(mask_rate=0.4, final_mask_rate=0.1), mlm.Task.Data(), tokenizer)
    tokens = np.random.default_rng(0).choice(tokenizer.ordinary_ids, 100)
    row = np.concatenate([[102, 102, 0, 0, tokenizer.cls], tokens, [tokenizer.sep]]).astype(np.uint32)
    for progress, number in ((0, 40), (0.5, 25), (0.9, 13)):
        batch = task.example_at(progress)(row, np.random.default_rng(0))
        assert batch['weights'].shape == (41,)  # 40 % of 102 positions throughout
        assert batch['weights'].sum() == number
    evaluated = task.for_evaluation().example(row, np.random.default_rng(0))
    assert evaluated['weights'].sum() == 15


def test_units_of_durations_follow_the_batch_size():
    phases = [Phase(0, 10, 8, 4), Phase(10, 20, 8, 8)]
    assert duration_units(phases, 5) == {'batch_size': ((10, 4), (10, 8)), 'examples': 5}
    assert duration_units([Phase(0, 10, 8, 4), Phase(10, 20, 16, 4)], 5) == {'batch_size': 4, 'examples': 5}


def test_tokens_of_the_first_steps():
    phases = [Phase(0, 10, 8, 4), Phase(10, 20, 16, 4)]
    assert [tokens_until(phases, step) for step in (0, 5, 10, 15, 20)] == [0, 160, 320, 640, 960]


@pytest.mark.parametrize(
    ('phases', 'message'),
    [
        ('((3, 32),)', r'train\.phases contains \(3, 32\)\. Each phase must be \(steps, length, batch size\)'),
        ('((3, 32, 0),)', r'all at least 1'),
        ('((3, "32", 8),)', r'all at least 1'),
        ('((3, 32, 8, "mask_rate"),)', r'settings such as "task\.mask_rate=0\.3" after them'),
        ('(("3 hours", 32, 8),)', r"train\.phases contains .*'3 hours' is not a duration"),
        ('((3_000_000_000, 32, 8),)', r'The run has 3,000,000,000 steps, but 2,147,483,647 is the limit'),
        ('((3, 32, 8, "task.mask_rat=0.3"),)', r"Unknown config key 'task\.mask_rat': did you mean 'mask_rate'"),
        ('((3, 32, 8, "task.mask_rate=many"),)', r"task\.mask_rate='many' is of type str"),
        ('((3, 32, 8, "task.mask_rate=2.0"),)', r'Invalid task\.mask_rate=2\.0'),
        ('((3, 32, 8, "optim.b2=0.9"),)', r'train\.phases cannot change optim\.b2 within a run\. It can change'),
        ('((3, 32, 8, "task.name=clm"),)', r'cannot change task\.name within a run'),
        ('((3, 32, 8, "task.negative_rate=0.2"),)', r'changes the prepared rows .*task\.negative_rate=0\.2'),
        ('((3, 32, 8, "model.rope_base=10000.0"),)', r'changes the parameters of the model .*model\.rope_base'),
    ],
)  # fmt: skip
def test_phases_that_cannot_be_are_rejected(tmp_path, corpus, rows, phases, message):
    with pytest.raises(UserError, match=message):
        pretrain(tmp_path / 'run', corpus, rows, f'train.phases={phases}')
    assert not (tmp_path / 'run' / 'checkpoints').exists()


def test_phase_settings_are_kept_in_the_config(corpus):
    phases = 'train.phases=(("48 examples", 32, 8, "task.mask_rate=0.3"), (3, 32, 16))'
    experiment = experiment_lib.read(f'{TINY}:pretrain', [f'data.sources=({str(corpus)!r},)', phases])
    assert [tuple(phase) for phase in experiment.phases] == [
        ('48 examples', 32, 8, ('task.mask_rate=0.3',)),
        (3, 32, 16, ()),
    ]
    saved = json.loads(json.dumps(experiment.as_dict()))
    assert experiment_lib.from_config(saved) == experiment


def test_a_changed_phase_is_named():
    before = {'train': {'phases': [[40, 32, 4, 'task.mask_rate=0.3'], [60, 32, 4, 'task.mask_rate=0.15']]}}
    now = {'train': {'phases': [[40, 32, 4, 'task.mask_rate=0.3'], [70, 32, 4, 'task.mask_rate=0.15']]}}
    (change,) = experiment_lib.describe_changes(before, now)
    assert change.startswith("train.phases[1] was [60, 32, 4, 'task.mask_rate=0.15'], is [70, 32")
