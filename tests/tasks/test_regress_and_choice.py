"""The regression and multiple-choice tasks: loss, and scores compared with values computed by hand."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.multiple_choice import ChoiceConfig
from bert_jax.data.records import Record
from bert_jax.tasks import choice, regress


@pytest.mark.parametrize('value', [0.0, 3.14, -2.5, 5])
def test_row_preserves_the_value(word_tokenizer, value):
    task = regress.Task(regress.Config(), LabeledConfig('x.jsonl', length=8), word_tokenizer)
    (row,) = task.make_examples([Record('a', {'text': 'w1', 'label': value})]).rows
    assert task.example(row, None)['value'] == np.float32(value)


@pytest.mark.parametrize('value', ['much', None, float('nan')])
def test_label_that_is_not_a_number_is_rejected(word_tokenizer, value):
    task = regress.Task(regress.Config(), LabeledConfig('x.jsonl', length=8), word_tokenizer)
    with pytest.raises(UserError, match='a has .* as its label, not a finite number'):
        task.make_examples([Record('a', {'text': 'w1', 'label': value})])


def test_correlations():
    task = regress.Task(regress.Config(), LabeledConfig(), None)
    outputs = {'predicted': np.array([1.0, 2, 3, 10]), 'value': np.array([0.0, 1, 3, 2])}
    scores = task.scores(outputs, None)
    assert scores['spearman'] == pytest.approx(0.8)
    assert scores['pearson'] == pytest.approx(np.corrcoef(outputs['predicted'], outputs['value'])[0, 1])
    assert scores['correlation'] == pytest.approx((scores['pearson'] + scores['spearman']) / 2)
    constant = task.scores({'predicted': np.ones(4), 'value': outputs['value']}, None)
    assert constant == {'pearson': 0, 'spearman': 0, 'correlation': 0}
    assert 'pearson' in task.format_scores(scores)


def test_squared_error(word_tokenizer):
    task = regress.Task(regress.Config(), LabeledConfig('x.jsonl', length=8), word_tokenizer)
    rows = task.make_examples([Record('a', {'text': 'w1', 'label': v}) for v in (1.0, 4.0)]).rows
    examples = [task.example(row, None) for row in rows]
    batch = {k: jnp.asarray(np.stack([e[k] for e in examples])) for k in examples[0]}
    result = task.loss(types.SimpleNamespace(class_logits=lambda *_: jnp.array([[2.0], [2.0]])), batch, None)
    assert float(result.losses['squared_error'].value()) == (1 + 4) / 2


def test_softmax_is_over_the_endings(word_tokenizer):
    task = choice.Task(choice.Config(), ChoiceConfig('x.jsonl', length=8), word_tokenizer)
    examples = task.make_examples([Record('a', {'text': 'w1', 'endings': ['w2', 'w3', 'w4'], 'label': 2})])
    batch = {k: jnp.asarray(v)[None] for k, v in task.example(examples.rows[0], None).items()}
    assert batch['tokens'].shape == (1, 3, 8)

    def class_logits(flat, key):
        assert flat['tokens'].shape == flat['segments'].shape == flat['valid'].shape == (3, 8)
        return jnp.where(flat['tokens'][:, 3] == word_tokenizer.encode(['w4'])[0][0], 2.0, 0.0)[:, None]

    result = task.loss(types.SimpleNamespace(class_logits=class_logits), batch, None)
    assert float(result.losses['cross_entropy'].value()) == pytest.approx(np.log(1 + 2 * np.exp(-2)))
    assert float(result.metrics['accuracy'].value()) == 1
    outputs = {k: np.asarray(v) for k, v in result.outputs.items()}
    assert task.predictions(outputs, None)[0]['prediction'] == 2
    assert task.scores(outputs, None) == {'majority': 1.0}


def test_mistake_is_the_size_of_the_error(word_tokenizer):
    task = regress.Task(regress.Config(), LabeledConfig('x.jsonl', length=8), word_tokenizer)
    gold = task.gold(Record('a', {'label': '2.5'}))
    assert task.mistake(gold, {'prediction': 1.0}) == (1.5, '1 instead of 2.5')
    assert task.mistake(gold, {'prediction': 2.5}) is None


def test_gold_label_is_the_number_of_an_ending(word_tokenizer):
    task = choice.Task(choice.Config(), ChoiceConfig('x.jsonl', length=8), word_tokenizer)
    record = Record('a', {'endings': ['w2', 'w3'], 'label': 1})
    assert task.mistake(task.gold(record), {'prediction': 1, 'probability': 0.9}) is None
    assert task.mistake(task.gold(record), {'prediction': 0, 'probability': 0.9}).severity == 0.9
    with pytest.raises(UserError, match='has the unknown label 2'):
        task.gold(Record('a', {'endings': ['w2', 'w3'], 'label': 2}))
