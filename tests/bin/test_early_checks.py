"""Data and output that a command cannot use are found before it prepares, loads, trains or waits for anything."""

import argparse
import errno
import json
import os
import tempfile

import pytest

from bert_jax.core import cli
from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer_training
from bert_jax.evals import prediction, scoring
from bert_jax.train import loop
from tests.runs import TINY, run_in_process


def assert_error(done, *parts):
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('error: ')
    for part in parts:
        assert part in last


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (None, 'No file matches'),
        (['{"text": "a", "label": "good"}', '{"text": '], 'validation.jsonl, line 2 is not JSON'),
        (['{"text": "a", "label": "god"}'], "has the unknown label 'god'"),
        (['{"words": "a", "label": "good"}'], "has no field 'text'"),
    ],
)
def test_evaluation_split_is_read_before_training(lines, message, tmp_path, pretrained, monkeypatch):
    monkeypatch.setattr(loop, 'train', lambda *_: 1 / 0)
    train = [{'text': 'a', 'label': label} for label in ('good', 'bad')]
    (tmp_path / 'train.jsonl').write_text('\n'.join(map(json.dumps, train)))
    if lines is not None:
        (tmp_path / 'validation.jsonl').write_text('\n'.join(lines))
    overrides = f'--config.data.source={tmp_path}/{{split}}.jsonl', f'--config.init.checkpoint={pretrained}'
    words = f'--config={TINY}:classify', f'--workdir={tmp_path / "run"}', *overrides
    assert_error(run_in_process('bert_jax.bin.train', *words), message)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (('task.mask_rate=2',), 'Invalid task.mask_rate=2.0'),
        (('task.negative_rate=2',), 'task.negative_rate=2.0 must be from 0 to 1'),
        (('data.length=4',), 'data.length=4 must be at least 5'),
        (('data.length=128',), 'model.max_positions'),
        (('model.name=gpt',), 'task.name=mlm needs model.name=bert, not gpt'),
        (('train.batch_size=7',), 'train.batch_size=7'),
        (('optim.warmup=20',), 'optim.warmup is 20 steps, but the whole run has 20'),
        (('optim.frozen=bert/layer',), "optim.frozen='bert/layer/' matches no parameter"),
        (('data.validation_split=test',), 'needs TFDS data'),
        (('data.text_key=body', 'data.sources={0}/*.txt,{0}/a.jsonl'), "has no text field 'body'"),
        (('data.sources={0}/*.txt,{0}/missing.txt',), 'No file matches'),
    ],
)
def test_settings_and_text_are_checked_before_the_tokenizer_is_trained(
    settings, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(tokenizer_training, 'train', lambda *_: 1 / 0)
    (tmp_path / 'a.txt').write_text('Some text.')
    (tmp_path / 'a.jsonl').write_text('{"text": "Some text."}')
    overrides = [f'data.sources={tmp_path}/a.txt', *(setting.format(tmp_path) for setting in settings)]
    words = f'--config={TINY}:pretrain', *(f'--config.{override}' for override in overrides)
    assert_error(run_in_process('bert_jax.bin.train', *words, f'--workdir={tmp_path / "run"}'), message)
    if settings[0].startswith(('data.', 'task.')) and settings != ('data.length=128',):
        assert_error(run_in_process('bert_jax.bin.prepare', *words, f'--rows={tmp_path / "rows"}'), message)


@pytest.mark.parametrize('flags', [(), ('--watch', '--timeout=0')])
def test_data_is_read_before_a_checkpoint_is_loaded_or_awaited(flags, tmp_path):
    words = f'--config={TINY}:classify', f'--config.data.source={tmp_path}/{{split}}.jsonl', *flags
    outputs = f'--checkpoint={tmp_path / "run"}', f'--out={tmp_path / "scores.json"}'
    assert_error(run_in_process('bert_jax.bin.eval_classify', *words, *outputs), 'No file matches')


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (('--input={0}/a.jsonl', '--output={0}/b.jsonl'), 'a.jsonl does not exist'),
        (('--question=Who?', '--context={0}/empty.txt'), 'empty.txt is empty'),
    ],
)
def test_input_is_read_before_the_model(flags, message, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, 'Predictor', lambda *_: 1 / 0)
    (tmp_path / 'empty.txt').write_text('\n')
    words = (flag.format(tmp_path) for flag in flags)
    assert_error(run_in_process('bert_jax.bin.predict', f'--checkpoint={tmp_path}', *words), message)


@pytest.mark.parametrize(
    ('command', 'flag'),
    [
        (('prepare', f'--config={TINY}:pretrain'), '--rows'),
        (('report', '.', '--out=report.html'), '--plots'),
    ],
)
def test_folder_is_checked(command, flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').write_text('')
    done = run_in_process(f'bert_jax.bin.{command[0]}', *command[1:], f'{flag}={tmp_path}/file/folder')
    assert_error(done, 'cannot be written (Not a directory)', flag)
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_full_disk_is_found_at_the_start(tmp_path, monkeypatch):
    cli.check_writable(tmp_path / 'a' / 'b' / 'scores.json', '--out')
    assert not any(tmp_path.iterdir())

    def fail(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, 'TemporaryFile', fail)
    with pytest.raises(
        UserError, match=r'cannot be written \(No space left on device\). Choose another --out'
    ):
        cli.check_writable(tmp_path / 'scores.json', '--out')


def test_scores_are_written_before_they_are_printed(tmp_path):
    class Scorer:
        def __call__(self, path):
            return {'step': 1, 'source': '', 'split': '', 'rows': 2, 'scores': {}}

        def format_scores(self, scores):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / 'scores.json'
    flags = argparse.Namespace(
        out=out, checkpoint=tmp_path, coordinator='', processes=1, process=0, watch=False
    )
    with pytest.raises(OSError, match='No space left'):
        scoring.score_checkpoints(Scorer, flags)
    assert json.loads(out.read_text())['rows'] == 2
