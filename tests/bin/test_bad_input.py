"""Bad input ends in one sentence that says what to do, no traceback, and a status that is not 0."""

import errno
import json
import os
import runpy
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core import cli
from tests.runs import run_here
from tests.tiny import __file__ as TINY


@pytest.fixture
def door(capsys, monkeypatch, tmp_path):
    """Runs a door as a command; returns its exit status and the last line of stderr, which holds no traceback."""

    def run(name, *words):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, words)])
        monkeypatch.delitem(sys.modules, f'bert_jax.bin.{name}', raising=False)
        with pytest.raises(SystemExit) as exit_:
            runpy.run_module(f'bert_jax.bin.{name}', run_name='__main__')
        written = capsys.readouterr().err
        assert 'Traceback' not in written
        return exit_.value.code, written.strip().splitlines()[-1]

    return run


@pytest.fixture
def pretrain(door, corpus, tmp_path):
    def run(*overrides, workdir=tmp_path / 'run', config='pretrain'):
        words = (f'--config={TINY}:{config}', f'--workdir={workdir}', f'--config.data.sources={corpus}')
        return door('train', *words, *(f'--config.{o}' for o in overrides))

    return run


def assert_sentence(result, *parts):
    status, line = result
    assert status not in (0, None)
    assert line.startswith('error: ')
    assert line.endswith(('.', '?'))
    for part in parts:
        assert part in line


def test_unknown_config_key_names_the_nearest(pretrain):
    assert_sentence(pretrain('optim.learning_rat=1'), "'optim.learning_rat'", "did you mean 'learning_rate'?")


def test_unknown_data_set_says_how_to_get_it(pretrain, monkeypatch, tmp_path):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    assert_sentence(pretrain('data.sources=glu/sst2'), "'glu/sst2'", 'TFDS_DATA_DIR', "did you mean 'glue'?")


def test_missing_files(pretrain):
    assert_sentence(pretrain('data.sources=nowhere/*.txt'), "'nowhere/*.txt'")


def test_empty_text(pretrain, tmp_path):
    (tmp_path / 'empty.txt').write_text('\n \n')
    assert_sentence(pretrain(f'data.sources={tmp_path}/empty.txt'), 'No text')
    assert not (tmp_path / 'run' / 'rows' / 'length32').exists()


def test_row_longer_than_the_positions(pretrain):
    assert_sentence(pretrain('data.length=128'), '128', '64 positions', 'data.length')


def test_vocabulary_that_is_not_the_checkpoints(pretrain, door, tmp_path):
    assert pretrain('train.steps=1', 'optim.warmup=0')[0] == 0
    vocab = tmp_path / 'vocab.txt'
    vocab.write_text('\n'.join(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b']))
    words = (
        f'--config={TINY}:classify',
        f'--workdir={tmp_path}/two',
        f'--config.init.checkpoint={tmp_path}/run',
    )
    assert_sentence(
        door('train', *words, f'--config.tokenizer.path={vocab}'), 'vocabulary of 7', 'checkpoint'
    )


def test_model_vocabulary_that_is_not_the_tokenizers(pretrain):
    assert_sentence(pretrain('model.vocab_size=77'), '77', 'tokenizer')


def test_indivisible_mesh(pretrain):
    assert_sentence(pretrain('mesh.tensor=3'), 'tensor=3', '8 device')
    assert_sentence(pretrain('train.batch_size=12'), 'train.batch_size=12', '8')
    assert_sentence(pretrain('mesh.strategy=tp', 'mesh.tensor=8'), '/attention/', 'does not divide by 8')


def test_workdir_that_cannot_be_written(pretrain, tmp_path):
    (tmp_path / 'file').write_text('')
    assert_sentence(pretrain(workdir=tmp_path / 'file' / 'run'), 'cannot be written', '--workdir')


def test_output_that_cannot_be_written(door, tmp_path):
    (tmp_path / 'file').write_text('')
    words = (f'--config={TINY}:classify', f'--checkpoint={tmp_path}')
    assert_sentence(
        door('eval_classify', *words, f'--out={tmp_path}/file/scores.json'), 'cannot be written', '--out'
    )


@pytest.mark.parametrize('name', ['config.json', 'metrics.jsonl'])
def test_output_in_the_place_of_what_a_run_wrote(door, tmp_path, name):
    (tmp_path / name).write_text('{}')
    words = (f'--config={TINY}:classify', f'--checkpoint={tmp_path}')
    assert_sentence(door('eval_classify', *words, f'--out={tmp_path}/{name}'), 'belongs to a run', '--out')
    assert_sentence(door('report', tmp_path, f'--out={tmp_path}/{name}'), 'belongs to a run', '--out')
    assert (tmp_path / name).read_text() == '{}'


def test_workdir_of_another_config(pretrain):
    assert pretrain('train.steps=1', 'optim.warmup=0')[0] == 0
    assert_sentence(
        pretrain('train.steps=2', 'optim.warmup=0'), 'made by another config', 'train.steps was 1, now 2'
    )


@pytest.mark.parametrize('label', [2, -1])
def test_label_outside_the_range(pretrain, door, tmp_path, label):
    assert pretrain('train.steps=1', 'optim.warmup=0')[0] == 0
    for split, last in (('train', 1), ('validation', label)):
        lines = [{'text': 'a', 'label': 0}, {'text': 'b', 'label': last}]
        (tmp_path / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    words = (
        f'--config={TINY}:classify',
        f'--workdir={tmp_path}/two',
        f'--config.init.checkpoint={tmp_path}/run',
    )
    result = door('train', *words, f'--config.data.source={tmp_path}/{{split}}.jsonl')
    assert_sentence(result, f'has the label {label}: ', 'validation.jsonl, line 2')


def test_checkpoint_that_is_not_there(door, tmp_path):
    words = (f'--config={TINY}:classify', f'--checkpoint={tmp_path}', f'--out={tmp_path}/scores.json')
    assert_sentence(door('eval_classify', *words), 'no checkpoint')


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
        ('model.pad_vocab_to=0', 'at least 1'),
        ('model.heads=-2', 'at least 1'),
        ('model.layers=-1', 'at least 1'),
        ('model.dropout=1.5', 'from 0 to 0.99'),
        ('model.rotary=-1', 'at least 0'),
        ('optim.learning_rate=-1', 'at least 0'),
        ('optim.b1=2.0', 'from 0 to 1'),
        ('optim.clip=-1.0', 'at least 0'),
    ],
)
def test_value_out_of_range(pretrain, override, limits):
    assert_sentence(pretrain(override), override.split('=')[0], f'must be {limits}')


def test_architecture_beside_a_checkpoint(door, tmp_path):
    words = (f'--config={TINY}:classify', f'--workdir={tmp_path}/two', '--config.init.checkpoint=runs/bert')
    assert_sentence(door('train', *words, '--config.model.layers=7'), 'model.layers', 'init.checkpoint')


def test_the_same_file_for_training_and_evaluation(pretrain, door, tmp_path):
    assert pretrain('train.steps=1', 'optim.warmup=0')[0] == 0
    (tmp_path / 'all.jsonl').write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    words = (
        f'--config={TINY}:classify',
        f'--workdir={tmp_path}/two',
        f'--config.init.checkpoint={tmp_path}/run',
    )
    result = door('train', *words, f'--config.data.source={tmp_path}/all.jsonl')
    assert_sentence(result, 'the same examples', '{split}')


def test_a_split_to_hold_out_of_files(pretrain):
    assert_sentence(pretrain('data.validation_split=validation'), 'the sources are files')


def test_bytes_that_are_no_text(pretrain, tmp_path):
    (tmp_path / 'utf16.txt').write_text('Some text.\n\nMore.', encoding='utf-16')
    assert_sentence(pretrain(f'data.sources={tmp_path}/utf16.txt'), 'utf16.txt', 'not UTF-8')


def test_nothing_to_watch(door, tmp_path):
    words = (f'--config={TINY}:classify', f'--checkpoint={tmp_path}/nowhere', f'--out={tmp_path}/s.json')
    status, line = door('eval_classify', *words, '--watch', '--timeout=0.1', '--poll=0.1')
    assert status == 1
    assert 'no new checkpoint' in line


def test_packages_that_are_not_there(capsys):
    assert cli.explain(ModuleNotFoundError(name='jax')) == 1
    assert 'launch/env.sh' in capsys.readouterr().err
    assert cli.explain(ModuleNotFoundError(name='bert_jax.nothing')) is None


def test_full_disk(capsys):
    assert cli.explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == 1
    assert 'the disk is full' in capsys.readouterr().err


def test_full_memory(capsys):
    for fill in (lambda: np.empty(2**50), lambda: jnp.zeros(2**45).block_until_ready()):
        with pytest.raises((MemoryError, jax.errors.JaxRuntimeError)) as e:
            fill()
        assert cli.explain(e.value) == 1
        assert 'train.batch_size' in capsys.readouterr().err


def test_empty_workdir():
    done = run_here('bert_jax.bin.train', f'--config={TINY}:pretrain', '--workdir=')
    assert (done.returncode, '--workdir is empty' in done.stderr) == (2, True)


@pytest.mark.parametrize('body', ['1 / 0', 'import nowhere', 'raise SystemExit(3)', 'raise IndexError'])
def test_a_config_that_does_not_run(door, tmp_path, body):
    for i, text in enumerate((body, f'def get_config():\n    {body}')):
        (tmp_path / f'{i}.py').write_text(text)
        assert_sentence(
            door('train', f'--config={tmp_path / f"{i}.py"}', f'--workdir={tmp_path / "run"}'),
            'does not run',
            'mend the config',
        )


def test_an_argument_that_a_config_has_not(door, tmp_path):
    assert_sentence(
        door('table', '--config=configs/tables/dna.py:tiny', f'--workdir={tmp_path}'),
        "'tiny'",
        'mini, small or paper',
    )


def test_steps_beside_phases(pretrain):
    assert_sentence(
        pretrain('train.phases=((1,32,8),)', 'train.steps=4'),
        'train.steps',
        'train.phases="((1000, 128, 32),)"',
    )


def test_missing_config_file(door, tmp_path):
    assert_sentence(door('train', '--config=nowhere.py', f'--workdir={tmp_path}'), 'nowhere.py')
