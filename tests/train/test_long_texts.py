"""Fine-tuning on texts that are longer than 512 tokens, with the configs for it."""

import json

import pytest

from bert_jax.bin import train as train_command
from bert_jax.core.errors import UserError
from bert_jax.evals.scoring import Scorer
from tests.runs import ROOT, metric_lines

CONFIGS = ROOT / 'configs' / 'finetune'
MODEL = (
    'model.size=tiny',
    'model.width=32',
    'model.mlp_width=64',
    'model.rope_base=10_000.0',
    'model.window=16',
    'model.global_every=2',
)
SHORT = (
    'train.steps=1',
    'optim.warmup=0',
    'train.batch_size=8',
    'train.accumulation_steps=1',
    'train.log_every=1',
    'train.length_buckets=1',
)


def train(config, workdir, source, rows):
    settings = [f'data.source={source}', f'tokenizer.path={rows}', 'data.allow_overlap=true', *MODEL, *SHORT]
    assert train_command.run(f'{CONFIGS}/{config}', workdir, settings) == 0


def write(folder, name, records):
    for split in ('train', name):
        (folder / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, records)))
    return f'{folder}/{{split}}.jsonl'


def test_medquad_config_trains_on_1024_tokens(tmp_path, rows, corpus):
    words = corpus.read_text().split()
    records = [{'answer': ' '.join(words[i : i + 700]), 'qtype': 'ab'[i % 2]} for i in range(8)]
    train('medquad.py:1024', tmp_path / 'run', write(tmp_path, 'test', records), rows)
    scores = metric_lines(tmp_path / 'run')[-1]
    assert scores['eval/majority'] == 0.5
    assert 0 <= scores['eval/accuracy'] <= 1


def test_long_squad_config_reads_an_article_in_one_window(tmp_path, rows, corpus):
    words = corpus.read_text().split()
    paragraphs = [' '.join(words[i : i + 60]) for i in range(0, 480, 60)]
    answers = [{'text': paragraph[:3], 'answer_start': 0} for paragraph in paragraphs]
    records = [
        {'title': 'a', 'context': p, 'question': 'who?', 'answers': [a], 'id': f'{i}'}
        for i, (p, a) in enumerate(zip(paragraphs, answers, strict=True))
    ]
    source = write(tmp_path, 'validation', records)
    train('long_squad.py:1024', tmp_path / 'run', source, rows)
    assert 0 <= metric_lines(tmp_path / 'run')[-1]['eval/f1'] <= 100
    overrides = [f'data.source={source}', 'train.eval_batch_size=8']
    windows = {}
    for length in (128, 1024):
        scorer = Scorer(f'{CONFIGS}/long_squad.py:{length}', overrides)
        windows[length] = scorer(tmp_path / 'run')
    assert windows[1024]['rows'] == len(records)
    assert windows[128]['rows'] > 5 * len(records)
    assert windows[128]['scores']['questions'] == windows[1024]['scores']['questions'] == len(records)


@pytest.mark.parametrize(
    ('config', 'overrides', 'change'),
    [
        ('medquad.py:2048', ["task.labels=('a', 'b')"], r'data\.length to 64'),
        (
            'long_squad.py:2048',
            [],
            r'data\.length to 64, data\.max_question_length to 32, data\.stride to 14',
        ),
    ],
)
def test_learned_positions_are_refused(tmp_path, pretrained, config, overrides, change):
    message = (
        f'Rows of 2048 tokens are longer than the 64 positions of the model. Lower {change} or, for a new'
    )
    with pytest.raises(UserError, match=message):
        train_command.run(f'{CONFIGS}/{config}', tmp_path, [f'init.checkpoint={pretrained}', *overrides])
