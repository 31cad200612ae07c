"""Invalid input ends in one line of error and a non-zero exit status, without a traceback."""

import errno
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core import cli
from bert_jax.core.errors import UserError
from bert_jax.evals import scoring
from bert_jax.experiments import jobs
from tests.runs import run_in_process
from tests.tiny import __file__ as TINY


def run_main(name, *arguments):
    """Run a command and return its exit status and the last line of stderr; fail on a traceback."""
    done = run_in_process(f'bert_jax.bin.{name}', *arguments)
    assert 'Traceback' not in done.stderr
    return done.returncode, done.stderr.strip().splitlines()[-1]


@pytest.fixture
def pretrain(corpus, tmp_path):
    def run(*overrides, workdir=tmp_path / 'run', config='pretrain'):
        words = (f'--config={TINY}:{config}', f'--workdir={workdir}', f'--config.data.sources={corpus}')
        return run_main('train', *words, *(f'--config.{o}' for o in overrides))

    return run


def assert_error(result, *parts):
    status, line = result
    assert status not in (0, None)
    assert line.startswith('error: ')
    assert line.endswith(('.', '?'))
    for part in parts:
        assert part in line


def test_unknown_config_key_names_the_nearest(pretrain):
    assert_error(pretrain('optim.learning_rat=1'), "'optim.learning_rat'", "did you mean 'learning_rate'?")


def test_unknown_data_set_names_the_data_dir_and_the_nearest(pretrain, monkeypatch, tmp_path):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    assert_error(pretrain('data.sources=glu/sst2'), "'glu/sst2'", 'TFDS_DATA_DIR', "did you mean 'glue'?")


def test_missing_files(pretrain):
    assert_error(pretrain('data.sources=nowhere/*.txt'), "'nowhere/*.txt'")


def test_empty_text(pretrain, tmp_path):
    (tmp_path / 'empty.txt').write_text('\n \n')
    assert_error(pretrain(f'data.sources={tmp_path}/empty.txt'), 'There is no text')
    assert not (tmp_path / 'run' / 'rows' / 'length32').exists()


def test_row_longer_than_the_positions(pretrain):
    assert_error(pretrain('data.length=128'), '128', '64 positions', 'data.length')


def test_vocabulary_differs_from_the_checkpoint(pretrain, tmp_path):
    assert pretrain('train.steps=1', 'optim.warmup=0')[0] == 0
    vocab = tmp_path / 'vocab.txt'
    vocab.write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b']))
    words = (
        f'--config={TINY}:classify',
        f'--workdir={tmp_path}/two',
        f'--config.init.checkpoint={tmp_path}/run',
    )
    assert_error(run_main('train', *words, f'--config.tokenizer.path={vocab}'), '(7 tokens)', 'checkpoint')


def test_model_vocabulary_differs_from_the_tokenizer(pretrain):
    assert_error(pretrain('model.vocab_size=77'), '77', 'tokenizer')


def test_indivisible_mesh(pretrain):
    assert_error(pretrain('mesh.tensor=3'), 'tensor=3', '8 device')
    assert_error(pretrain('train.batch_size=12'), 'train.batch_size=12', '8')
    assert_error(pretrain('mesh.strategy=tp', 'mesh.tensor=8'), '/attention/', 'not divisible by 8')


def test_workdir_is_not_writable(pretrain, tmp_path):
    (tmp_path / 'file').write_text('')
    assert_error(pretrain(workdir=tmp_path / 'file' / 'run'), 'cannot be written', '--workdir')


def test_output_is_not_writable(tmp_path):
    (tmp_path / 'file').write_text('')
    words = (f'--config={TINY}:classify', f'--checkpoint={tmp_path}')
    assert_error(
        run_main('eval_classify', *words, f'--out={tmp_path}/file/scores.json'), 'cannot be written', '--out'
    )


@pytest.mark.parametrize('name', ['config.json', 'metrics.jsonl'])
def test_output_would_overwrite_a_file_of_a_run(tmp_path, name):
    (tmp_path / name).write_text('{}')
    words = (f'--config={TINY}:classify', f'--checkpoint={tmp_path}')
    assert_error(
        run_main('eval_classify', *words, f'--out={tmp_path}/{name}'), 'is a file of a training run', '--out'
    )
    assert_error(
        run_main('report', tmp_path, f'--out={tmp_path}/{name}'), 'is a file of a training run', '--out'
    )
    assert (tmp_path / name).read_text() == '{}'


def test_workdir_of_another_config(pretrain):
    assert pretrain('train.steps=1', 'optim.warmup=0')[0] == 0
    assert_error(
        pretrain('train.steps=2', 'optim.warmup=0'), "schedule='linear' lowered the learning rate", 'new run'
    )
    changes = ('data.length=16', 'optim.b2=0.9', 'optim.warmup=0.1', 'train.seed=1', 'train.steps=2')
    first = 'data.length was 32, is 16; optim.b2 was 0.999, is 0.9; optim.warmup was 0, is 0.1; and 2 more'
    assert_error(pretrain(*changes), f'a run with another config ({first}).')
    # Before the tokenizer, which would advise to delete files of the run.
    message = 'a run with another config (tokenizer.vocab_size was 200, is 150).'
    assert_error(pretrain('train.steps=1', 'optim.warmup=0', 'tokenizer.vocab_size=150'), message)


@pytest.mark.parametrize('label', [2, -1])
def test_label_outside_the_range(pretrain, tmp_path, label):
    assert pretrain('train.steps=1', 'optim.warmup=0')[0] == 0
    for split, last in (('train', 1), ('validation', label)):
        lines = [{'text': 'a', 'label': 0}, {'text': 'b', 'label': last}]
        (tmp_path / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    words = (
        f'--config={TINY}:classify',
        f'--workdir={tmp_path}/two',
        f'--config.init.checkpoint={tmp_path}/run',
    )
    result = run_main('train', *words, f'--config.data.source={tmp_path}/{{split}}.jsonl')
    assert_error(result, f'has the unknown label {label}: ', 'validation.jsonl, line 2')


def test_missing_checkpoint(tmp_path, labeled):
    data = f'--config.data.source={labeled}'
    words = (f'--config={TINY}:classify', data, f'--checkpoint={tmp_path}', f'--out={tmp_path}/scores.json')
    assert_error(run_main('eval_classify', *words), 'no checkpoint')


@pytest.mark.parametrize(
    ('override', 'limits'),
    [
        ('train.seed=-1', 'from 0 to 4,294,967,295'),
        ('train.eval_rows=-1', 'at least 0'),
        ('train.batch_size=0', 'at least 1'),
        ('tokenizer.vocab_size=0', 'at least 6'),
        ('data.workers=-1', 'at least 0'),
        ('data.seed=-1', 'at least 0'),
        ('data.validation_fraction=1.5', 'from 0 to 1'),
        ('model.pad_vocab_multiple=0', 'at least 1'),
        ('model.heads=-2', 'at least 1'),
        ('model.layers=-1', 'at least 1'),
        ('model.dropout=1.5', 'from 0 to 0.99'),
        ('model.rope_base=-1', 'at least 0'),
        ('optim.learning_rate=-1', 'at least 0'),
        ('optim.b1=1.0', 'from 0 to 0.999999'),
        ('optim.clip_norm=-1.0', 'at least 0'),
    ],
)
def test_value_out_of_range(pretrain, override, limits):
    assert_error(pretrain(override), override.split('=')[0], f'must be {limits}')


def test_architecture_set_with_a_checkpoint(tmp_path):
    words = (f'--config={TINY}:classify', f'--workdir={tmp_path}/two', '--config.init.checkpoint=runs/bert')
    assert_error(run_main('train', *words, '--config.model.layers=7'), 'model.layers', 'init.checkpoint')


@pytest.mark.parametrize(
    ('source', 'settings'),
    [
        ('glue/sst2', ['eval_split=train']),
        ('glue/sst2', ["train_split='validation[:80%]+test'"]),
        ('{folder}/{{split}}.jsonl', ['eval_split=train']),
        ('{folder}/train.jsonl', []),
        ('{folder}/{{split}}*.jsonl', ['eval_split=tr']),
    ],
    ids=str,
)
def test_same_examples_for_training_and_evaluation(tmp_path, source, settings):
    """Refused before anything is read, such as the checkpoint, which does not exist."""
    (tmp_path / 'train.jsonl').write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    words = [f'--config={TINY}:classify', f'--workdir={tmp_path}/run', '--config.init.checkpoint=nowhere']
    words += [f'--config.data.{s}' for s in (f'source={source.format(folder=tmp_path)}', *settings)]
    parts = ('data.train_split', 'data.eval_split', 'the same examples', 'data.allow_overlap=true')
    assert_error(run_main('train', *words), *parts)
    assert not (tmp_path / 'run').exists()
    assert_error(run_main('train', *words, '--config.data.allow_overlap=true'), "'nowhere'")
    job = jobs.Job(tmp_path, f'{TINY}:classify', tuple(w.removeprefix('--config.') for w in words[3:]))
    with pytest.raises(UserError, match='the same examples'):
        jobs.validate([job])
    # An evaluation reads only the evaluation split.
    assert jobs.validate([job._replace(checkpoint='elsewhere')]) == ['elsewhere']
    scoring.Scorer(job.config, job.settings, 'classify')


def test_copy_of_the_training_file_for_evaluation(tmp_path):
    for split in ('train', 'validation'):
        (tmp_path / f'{split}.jsonl').write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    words = [f'--config={TINY}:classify', f'--workdir={tmp_path}/run', '--config.init.checkpoint=nowhere']
    words.append(f'--config.data.source={tmp_path}/{{split}}.jsonl')
    assert_error(run_main('train', *words), f"validation.jsonl' is a copy of '{tmp_path}/train.jsonl'")
    assert_error(run_main('train', *words, '--config.data.allow_overlap=true'), "'nowhere'")


def test_same_split_for_pretraining_and_validation(pretrain):
    result = pretrain('data.validation_split=train', 'data.sources=pydocs/text')
    assert_error(result, "data.split='train'", "data.validation_split='train'", 'the same examples')


@pytest.mark.parametrize(
    'override',
    ['train.steps=abc', 'train.log_every=1.5', 'train.eval_every="2 days"', 'checkpoint.every="1.5 steps"']
    + ['optim.warmup=-1', 'optim.decay=all'],
)
def test_duration_is_refused_before_rows_are_prepared(pretrain, tmp_path, override):
    assert_error(pretrain(override), f'{override.split("=")[0]}=', 'is not a duration')
    assert not (tmp_path / 'run').exists()


def test_validation_split_of_files(pretrain):
    assert_error(pretrain('data.validation_split=validation'), 'the sources are files')


def test_text_that_is_not_utf8(pretrain, tmp_path):
    (tmp_path / 'utf16.txt').write_text('Some text.\n\nMore.', encoding='utf-16')
    assert_error(pretrain(f'data.sources={tmp_path}/utf16.txt'), 'utf16.txt', 'not UTF-8')


def test_nothing_to_watch(tmp_path, labeled):
    data = f'--config.data.source={labeled}'
    words = (
        f'--config={TINY}:classify',
        data,
        f'--checkpoint={tmp_path}/nowhere',
        f'--out={tmp_path}/s.json',
    )
    status, line = run_main('eval_classify', *words, '--watch', '--timeout=0.1', '--poll=0.1')
    assert status == 1
    assert 'No new checkpoint' in line


def test_missing_packages(capsys):
    assert cli.report_error(ModuleNotFoundError(name='jax')) == 1
    assert 'launch/env.sh' in capsys.readouterr().err
    assert cli.report_error(ModuleNotFoundError(name='bert_jax.nothing')) is None


def test_full_disk(capsys):
    assert cli.report_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == 1
    assert 'the disk is full' in capsys.readouterr().err


def test_full_memory(capsys):
    for fill in (lambda: np.empty(2**50), lambda: jnp.zeros(2**45).block_until_ready()):
        with pytest.raises((MemoryError, jax.errors.JaxRuntimeError)) as e:
            fill()
        assert cli.report_error(e.value) == 1
        assert 'train.batch_size' in capsys.readouterr().err


def test_empty_workdir():
    done = run_in_process('bert_jax.bin.train', f'--config={TINY}:pretrain', '--workdir=')
    assert (done.returncode, '--workdir is empty' in done.stderr) == (2, True)


@pytest.mark.parametrize('body', ['1 / 0', 'import nowhere', 'raise SystemExit(3)', 'raise IndexError'])
def test_config_that_fails(tmp_path, body):
    for i, text in enumerate((body, f'def get_config():\n    {body}')):
        (tmp_path / f'{i}.py').write_text(text)
        assert_error(
            run_main('train', f'--config={tmp_path / f"{i}.py"}', f'--workdir={tmp_path / "run"}'),
            'failed',
            'Fix the config file',
        )


def test_unknown_config_argument(tmp_path):
    assert_error(
        run_main('table', '--config=configs/tables/dna.py:tiny', f'--workdir={tmp_path}'),
        "'tiny'",
        'choose from mini, small, paper.',
    )


def test_steps_set_with_phases(pretrain):
    assert_error(
        pretrain('train.phases=((1,32,8),)', 'train.steps=4'),
        'train.steps',
        'train.phases="((1000, 128, 32),)"',
    )


def test_missing_config_file(tmp_path):
    assert_error(run_main('train', '--config=nowhere.py', f'--workdir={tmp_path}'), 'nowhere.py')


def test_length_of_a_program_that_has_none_is_refused(tmp_path):
    status, line = run_main('export', '--checkpoint=x', f'--out={tmp_path}/out', '--length=64')
    assert status == 2
    assert '--length needs --format=onnx' in line
