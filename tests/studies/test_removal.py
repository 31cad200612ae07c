"""Zero-shot transfer with the mean of a language removed."""

import json
import pathlib

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import scoring
from bert_jax.modeling import module
from bert_jax.studies import removal
from bert_jax.train import load
from tests.runs import SAVED, TINY, finetune, pretrain, run_here


@pytest.mark.parametrize('norm', ['post', 'pre'])
def test_a_bias_moves_the_hidden_states_of_one_layer(norm, tmp_path, corpus, rows):
    settings = (f'model.norm={norm}', 'train.steps=1', 'optim.warmup=0', SAVED)
    assert pretrain(tmp_path, corpus, rows, *settings) == 0
    trained = load.read(tmp_path)
    tokens = np.arange(6, 18, dtype=np.int32).reshape(2, 6)
    before = module.merge(trained.graph, trained.params).bert(tokens).hidden_states
    vector = np.linspace(-1, 1, before[0].shape[-1])
    for layer, states in enumerate(before):
        moved = removal.moved(trained, layer, vector)
        after = module.merge(trained.graph, moved).bert(tokens).hidden_states
        np.testing.assert_allclose(after[layer], states + vector, atol=1e-5)
        for below in range(layer):
            np.testing.assert_array_equal(after[below], before[below])


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
        ids = t.encode([json.loads(line)['text']])[0][: trained.experiment.data.length - 2]
        row = np.concatenate([[t.cls], ids, [t.sep]])[None].astype(np.int32)
        states.append(np.stack(model.bert(row).hidden_states)[:, 0, 1:-1])
    np.testing.assert_allclose(removal.means(trained, rows), np.concatenate(states, 1).mean(1), atol=1e-4)


def test_a_language_moved_to_itself_scores_as_before(finetuned, labelled):
    trained, rows = evaluator(finetuned, labelled)
    found = removal.study(trained, rows, rows, 'accuracy')
    assert found['home'] == found['scores']['unmoved']
    assert set(found['by_layer']) == {found['home']}
    with pytest.raises(UserError, match='is none of .*accuracy'):
        removal.study(trained, rows, rows, 'f2')


def test_the_door_writes_table_and_figure(finetuned, labelled, tmp_path):
    home = f'{TINY}:classify'
    run = run_here(
        'bert_jax.bin.study_removal',
        f'--checkpoint={finetuned}',
        f'--home={home}',
        f'--away={home}',
        f'--config.data.source={labelled}',
        f'--out={tmp_path / "out"}',
    )
    assert run.returncode == 0, run.stderr
    assert 'mean removed at layer 0' in run.stdout
    assert {p.suffix for p in (tmp_path / 'out').iterdir()} >= {'.md', '.csv', '.tex', '.json', '.png'}
