"""Tests of mean removal for cross-lingual transfer."""

import json
import pathlib

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import scoring
from bert_jax.studies import mean_removal
from bert_jax.studies.mean_shift import shift_layer
from tests.runs import TINY, finetune, hidden_states, run_in_process


@pytest.fixture(scope='module')
def finetuned(tmp_path_factory, pretrained, labeled):
    workdir = tmp_path_factory.mktemp('finetuned')
    assert finetune(workdir, pretrained, labeled) == 0
    return workdir


def load_evaluator(finetuned, labeled):
    return scoring.Scorer(f'{TINY}:classify', [f'data.source={labeled}']).load_evaluator(finetuned)


def test_mean_is_over_the_ordinary_tokens_of_all_rows(finetuned, labeled):
    trained, rows = load_evaluator(finetuned, labeled)
    t = trained.tokenizer
    lines = pathlib.Path(labeled.format(split='validation')).read_text().splitlines()
    states = []
    for line in lines:
        (ids,) = t.encode([json.loads(line)['text']])
        row = np.concatenate([[t.cls], ids, [t.sep]])[None].astype(np.int32)
        ordinary = np.isin(row[0], t.ordinary_ids)  # digits are unknown
        states.append(hidden_states(trained, row)[:, 0, ordinary])
    np.testing.assert_allclose(
        mean_removal.mean_by_layer(trained, rows, 'x'), np.concatenate(states, 1).mean(1), atol=1e-4
    )


def test_shifted_target_has_the_mean_of_the_source(finetuned, labeled, tmp_path):
    lines = [
        json.dumps({'text': t, 'label': 'good'})
        for t in ('my neighbour finds the river', 'a small bird again')
    ]
    (tmp_path / 'validation.jsonl').write_text('\n'.join(lines))
    trained, source = load_evaluator(finetuned, labeled)
    _, target = load_evaluator(finetuned, f'{tmp_path}/{{split}}.jsonl')
    source_mean, target_mean = (
        mean_removal.mean_by_layer(trained, source, 'x'),
        mean_removal.mean_by_layer(trained, target, 'y'),
    )
    assert np.abs(source_mean - target_mean).max() > 0.1
    for layer, vector in enumerate(source_mean - target_mean):
        params = shift_layer(trained.params, trained.experiment.model, layer, vector)
        np.testing.assert_allclose(
            mean_removal.mean_by_layer(trained._replace(params=params), target, 'y')[layer],
            source_mean[layer],
            atol=1e-4,
        )


def test_same_language_scores_are_unchanged(finetuned, labeled):
    trained, rows = load_evaluator(finetuned, labeled)
    results = mean_removal.study(trained, rows, rows, 'accuracy')
    assert results['source_score'] == results['scores']['baseline']
    assert set(results['mean_removed_by_layer']) == {results['source_score']}
    with pytest.raises(UserError, match='--metric=f2 is not a metric .*accuracy'):
        mean_removal.study(trained, rows, rows, 'f2')


@pytest.mark.parametrize(('metric', 'best'), [('accuracy', max), ('loss', min)])
def test_best_layer_has_the_highest_score_or_the_lowest_loss(finetuned, labeled, monkeypatch, metric, best):
    trained, rows = load_evaluator(finetuned, labeled)
    scores = iter([0.5, 0.2, 0.9, 0.4, 0.7])
    monkeypatch.setattr(mean_removal, '_score', lambda *_: next(scores))
    results = mean_removal.study(trained, rows, rows, metric)
    assert results['scores']['best_mean_removed'] == best(results['mean_removed_by_layer'])


def test_command_writes_table_and_figure(finetuned, labeled, tmp_path):
    config = f'{TINY}:classify'
    run = run_in_process(
        'bert_jax.bin.study_mean_removal',
        f'--checkpoint={finetuned}',
        f'--source_config={config}',
        f'--target_config={config}',
        f'--config.data.source={labeled}',
        f'--out={tmp_path / "out"}',
    )
    assert run.returncode == 0, run.stderr
    assert 'mean removed at layer 0' in run.stdout
    assert {p.suffix for p in (tmp_path / 'out').iterdir()} >= {'.md', '.csv', '.tex', '.json', '.png'}
