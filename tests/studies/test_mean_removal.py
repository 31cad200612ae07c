"""Zero-shot transfer with the mean of a language removed."""

import json
import pathlib

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import scoring
from bert_jax.modeling import module
from bert_jax.studies import mean_removal
from bert_jax.studies.mean_shift import moved
from tests.runs import TINY, finetune, run_here


@pytest.fixture(scope='module')
def finetuned(tmp_path_factory, pretrained, labelled):
    workdir = tmp_path_factory.mktemp('finetuned')
    assert finetune(workdir, pretrained, labelled) == 0
    return workdir


def evaluator(finetuned, labelled):
    return scoring.Scorer(f'{TINY}:classify', [f'data.source={labelled}']).evaluator(finetuned)


def test_the_mean_is_over_the_ordinary_tokens_of_all_rows(finetuned, labelled):
    trained, rows = evaluator(finetuned, labelled)
    model, t = module.merge(trained.graph, trained.params), trained.tokenizer
    lines = pathlib.Path(labelled.format(split='validation')).read_text().splitlines()
    states = []
    for line in lines:
        (ids,) = t.encode([json.loads(line)['text']])
        row = np.concatenate([[t.cls], ids, [t.sep]])[None].astype(np.int32)
        ordinary = np.isin(row[0], t.ordinary)  # digits are unknown
        states.append(np.stack(model.bert(row).hidden_states)[:, 0, ordinary])
    np.testing.assert_allclose(
        mean_removal.means(trained, rows, 'x'), np.concatenate(states, 1).mean(1), atol=1e-4
    )


def test_moved_the_means_are_those_of_home(finetuned, labelled, tmp_path):
    lines = [
        json.dumps({'text': t, 'label': 'good'})
        for t in ('my neighbour finds the river', 'a small bird again')
    ]
    (tmp_path / 'validation.jsonl').write_text('\n'.join(lines))
    trained, home = evaluator(finetuned, labelled)
    _, away = evaluator(finetuned, f'{tmp_path}/{{split}}.jsonl')
    here, there = mean_removal.means(trained, home, 'x'), mean_removal.means(trained, away, 'y')
    assert np.abs(here - there).max() > 0.1
    for layer, vector in enumerate(here - there):
        params = moved(trained.params, trained.experiment.model, layer, vector)
        np.testing.assert_allclose(
            mean_removal.means(trained._replace(params=params), away, 'y')[layer], here[layer], atol=1e-4
        )


def test_a_language_moved_to_itself_scores_as_before(finetuned, labelled):
    trained, rows = evaluator(finetuned, labelled)
    found = mean_removal.study(trained, rows, rows, 'accuracy')
    assert found['home'] == found['scores']['unmoved']
    assert set(found['by_layer']) == {found['home']}
    with pytest.raises(UserError, match='is none of .*accuracy'):
        mean_removal.study(trained, rows, rows, 'f2')


def test_the_door_writes_table_and_figure(finetuned, labelled, tmp_path):
    home = f'{TINY}:classify'
    run = run_here(
        'bert_jax.bin.study_mean_removal',
        f'--checkpoint={finetuned}',
        f'--home={home}',
        f'--away={home}',
        f'--config.data.source={labelled}',
        f'--out={tmp_path / "out"}',
    )
    assert run.returncode == 0, run.stderr
    assert 'mean removed at layer 0' in run.stdout
    assert {p.suffix for p in (tmp_path / 'out').iterdir()} >= {'.md', '.csv', '.tex', '.json', '.png'}
