"""The record of a run is true, and is enough to repeat the run."""

import json
import logging
import pathlib
import re
import shutil

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import segmentation
from bert_jax.data.rows import read_manifest
from bert_jax.train import loop, record, resume
from tests.runs import finetune, metric_lines, pretrain, train_command


def test_run_is_repeated_from_its_record(tmp_path, corpus, pretrained):
    config = pretrained / 'config.json'
    assert train_command.run(str(config), tmp_path, [f'data.rows_dir={tmp_path}/rows']) == 0
    assert metric_lines(tmp_path) == metric_lines(pretrained)
    found, repeated = record.read(pretrained), record.read(tmp_path)
    assert found['data'] == repeated['data'] == [{'file': str(corpus), 'bytes': corpus.stat().st_size}]
    assert found['tokenizer']['fingerprint'] == repeated['tokenizer']['fingerprint']
    (start,) = found['starts']
    assert (start['step'], start['devices']['count']) == (0, 8)
    assert {'jax', 'tokenizers', 'python'} <= start['versions'].keys()
    manifest = read_manifest(tmp_path / 'rows' / 'length32')
    assert (manifest['tokenizer'], manifest['data']) == (repeated['tokenizer'], repeated['data'])
    assert manifest['process']['command'] == repeated['starts'][0]['command']


def test_record_of_fine_tuning_and_changes_of_its_inputs(tmp_path, pretrained, labeled, monkeypatch, caplog):
    folder = shutil.copytree(pathlib.Path(labeled).parent, tmp_path / 'labeled')
    init = shutil.copytree(pretrained, tmp_path / 'init')
    run = tmp_path / 'run'

    def train():
        return finetune(run, init, f'{folder}/{{split}}.jsonl', 'tokenizer.lowercase=false')

    monkeypatch.setattr(loop, '_run', lambda *_: 0)
    assert train() == 0
    found = record.read(run)
    assert [pathlib.Path(item['file']).name for item in found['data']] == ['train.jsonl', 'validation.jsonl']
    assert (found['init']['step'], found['init']['path']) == (20, str(init / 'checkpoints' / '20'))
    assert found['tokenizer']['source'] == found['init']['path']
    tokenizer = json.loads((run / 'config.json').read_text())['tokenizer']
    assert (tokenizer['vocab_size'], tokenizer['lowercase']) == (found['tokenizer']['size'], True)

    (run / 'checkpoints' / '5').mkdir(parents=True)
    validation = folder / 'validation.jsonl'
    text = validation.read_text()
    validation.write_text(text.replace('"good"', '"bad"', 1))
    with pytest.raises(UserError, match=r'other content of the data \(.*/validation\.jsonl\)'):
        train()
    validation.write_text(text)
    monkeypatch.setattr(loop, 'train', lambda *_: 0)
    assert train() == 0
    assert 'init.checkpoint has changed' not in caplog.text
    shutil.rmtree(init / 'checkpoints' / '20')
    with caplog.at_level(logging.WARNING):
        assert train() == 0
    assert 'init.checkpoint has changed' in caplog.text


def test_changed_text_or_words_are_found_before_rows_are_prepared(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(loop, '_run', lambda *_: 0)
    text, words, run = tmp_path / 'a.txt', tmp_path / 'words.txt', tmp_path / 'run'
    text.write_text(corpus.read_text())
    words.write_text('ab\n')
    settings = 'task.whole_word_masking=true', f'task.segmenter={words}', 'train.steps=4'

    def train(*changes):
        segmentation._read_words.cache_clear()
        return pretrain(run, text, '', *settings, *changes)

    assert train() == 0
    assert record.read(run)['segmenter']['source'] == str(words)
    (run / 'checkpoints' / '2').mkdir(parents=True)
    monkeypatch.setattr(loop, 'train', lambda *_: 0)
    assert train() == 0
    for keeps_rows in (True, False):
        if not keeps_rows:
            shutil.rmtree(run / 'rows')
        for file, name in ((text, f'the data ({text})'), (words, f"task.segmenter='{words}'")):
            content = file.read_text()
            file.write_text(f'{content}more\n')
            with pytest.raises(UserError, match=re.escape(f'other content of {name}. Restore it')):
                train()
            file.write_text(content)
        assert (run / 'rows').exists() == keeps_rows
    with pytest.raises(UserError, match=r'another config \(task\.segmenter was'):
        train('task.segmenter=')
    assert train() == 0


def test_losses_of_a_mixture_and_evaluations_that_checkpoints_add(tmp_path, corpus, caplog):
    small = tmp_path / 'small.txt'
    small.write_text('\n\n'.join(corpus.read_text().split('\n\n')[:10]))
    sources = f'data.sources=a={corpus},b={small}'
    best = 'checkpoint.best_metric=mlm_loss/training_mixture', 'checkpoint.every=3', 'train.eval_every=4'
    with caplog.at_level(logging.INFO):
        assert (
            pretrain(tmp_path, corpus, '', sources, 'data.sampling_exponent=0.5', 'train.steps=6', *best) == 0
        )
    assert 'in addition to those of train.eval_every: 1\n' in caplog.text
    scores = [line for line in metric_lines(tmp_path) if 'eval/loss' in line]
    assert [line['step'] for line in scores] == [3, 4, 6]
    weights = [size**0.5 for size in read_manifest(tmp_path / 'rows' / 'length32')['corpus_sizes']['train']]
    losses = [scores[-1][f'eval/mlm_loss/{name}'] for name in 'ab']
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert scores[-1]['eval/mlm_loss/training_mixture'] == pytest.approx(expected)
    assert losses[0] != losses[1]


def test_damaged_record_is_not_compared_and_is_written_again(tmp_path, caplog):
    now = {'tokenizer': {'fingerprint': 'a'}, 'data': [], 'init': None}
    for content in ('{"tokenizer": 3, "starts": 7}', '{"tokenizer": {}, "data": [1]}', '[1]', '{'):
        (tmp_path / record.FILE).write_text(content)
        caplog.clear()
        saved = record.read(tmp_path)
        record.check(tmp_path, saved, now)
        assert 'run.json is damaged' in caplog.text
        record.write(tmp_path, saved, now, 3)
        assert [start['step'] for start in record.read(tmp_path)['starts']] == [3]


@pytest.mark.parametrize('content', [b'{', b'[1]', b'\xff', b'{}', b'{"train": 3}', b'[' * 5000])
def test_damaged_config_of_a_run_is_an_error(tmp_path, content):
    (tmp_path / 'checkpoints' / '5' / 'metadata').mkdir(parents=True)
    (tmp_path / 'config.json').write_bytes(content)
    with pytest.raises(
        UserError, match=r'config.json. is damaged \(.*\)\. Delete it to resume with the same command'
    ):
        resume.read_saved_config(tmp_path)
