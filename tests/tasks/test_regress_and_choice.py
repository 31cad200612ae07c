"""Numbers and choices: the loss, and scores against values worked out by hand."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data.labeled import LabelledConfig
from bert_jax.data.multiple_choice import ChoiceConfig
from bert_jax.data.records import Record
from bert_jax.tasks import choice, regress


@pytest.mark.parametrize('value', [0.0, 3.14, -2.5, 5])
def test_a_number_survives_its_row(words, value):
    made = regress.Task(regress.Config(), LabelledConfig('x.jsonl', length=8), words)
    (row,) = made.examples([Record('a', {'text': 'w1', 'label': value})]).rows
    assert made.example(row, None)['value'] == np.float32(value)


@pytest.mark.parametrize('value', ['much', None, float('nan')])
def test_what_is_no_number_is_named(words, value):
    made = regress.Task(regress.Config(), LabelledConfig('x.jsonl', length=8), words)
    with pytest.raises(UserError, match='a has the label .* no number'):
        made.examples([Record('a', {'text': 'w1', 'label': value})])


def test_correlations():
    made = regress.Task(regress.Config(), LabelledConfig(), None)
    outputs = {'predicted': np.array([1.0, 2, 3, 10]), 'value': np.array([0.0, 1, 3, 2])}
    got = made.scores(outputs, None)
    assert got['spearman'] == pytest.approx(0.8)
    assert got['pearson'] == pytest.approx(np.corrcoef(outputs['predicted'], outputs['value'])[0, 1])
    assert got['correlation'] == pytest.approx((got['pearson'] + got['spearman']) / 2)
    flat = made.scores({'predicted': np.ones(4), 'value': outputs['value']}, None)
    assert flat == {'pearson': 0, 'spearman': 0, 'correlation': 0}
    assert 'pearson' in made.describe(got)


def test_the_squared_error(words):
    made = regress.Task(regress.Config(), LabelledConfig('x.jsonl', length=8), words)
    found = made.examples([Record('a', {'text': 'w1', 'label': v}) for v in (1.0, 4.0)])
    examples = [made.example(row, None) for row in found.rows]
    batch = {k: jnp.asarray(np.stack([e[k] for e in examples])) for k in examples[0]}
    result = made.loss(types.SimpleNamespace(scores=lambda *_: jnp.array([[2.0], [2.0]])), batch, None)
    assert float(result.terms['squared_error'].value()) == (1 + 4) / 2


def test_endings_compete(words):
    made = choice.Task(choice.Config(), ChoiceConfig('x.jsonl', length=8), words)
    found = made.examples([Record('a', {'text': 'w1', 'endings': ['w2', 'w3', 'w4'], 'label': 2})])
    batch = {k: jnp.asarray(v)[None] for k, v in made.example(found.rows[0], None).items()}
    assert batch['tokens'].shape == (1, 3, 8)

    def scores(flat, key):
        assert flat['tokens'].shape == flat['segments'].shape == flat['valid'].shape == (3, 8)
        return jnp.where(flat['tokens'][:, 3] == words.encode(['w4'])[0][0], 2.0, 0.0)[:, None]

    result = made.loss(types.SimpleNamespace(scores=scores), batch, None)
    assert float(result.terms['cross_entropy'].value()) == pytest.approx(np.log(1 + 2 * np.exp(-2)))
    assert float(result.metrics['accuracy'].value()) == 1
    outputs = {k: np.asarray(v) for k, v in result.outputs.items()}
    assert made.predictions(outputs, None)[0]['label'] == 2
    assert made.scores(outputs, None) == {'majority': 1.0}
