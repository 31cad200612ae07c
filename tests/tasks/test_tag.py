"""The tagging task: loss at first subwords, scores of labels and entities."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.records import Record
from bert_jax.data.tagging import TaggingConfig
from bert_jax.modeling.heads import Output
from bert_jax.tasks import tag

LABELS = ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
TRUE = [['B-PER', 'I-PER', 'O', 'B-LOC'], ['O', 'B-LOC', 'I-LOC', 'O'], ['O']]
PREDICTED = [['B-PER', 'I-PER', 'O', 'O'], ['O', 'B-LOC', 'O', 'I-PER'], ['O']]


@pytest.fixture(scope='module')
def vocabulary():
    return tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(50)), 'x', '##y'])


def make_task(vocabulary=None, length=12, **settings):
    config = tag.Config(labels=LABELS, **{'entities': True, **settings})
    return tag.Task(config, TaggingConfig('x.conll', length=length), vocabulary)


def build_examples(task, sentences=TRUE, word='xy'):
    return task.make_examples(
        [Record(f'example {i}', {'tokens': [word] * len(s), 'tags': s}) for i, s in enumerate(sentences)]
    )


def make_outputs(task, examples, sentences):
    """Return the outputs of a model that predicts these labels at words, and a wrong label elsewhere."""
    predicted = np.full((len(examples.rows), 12), 3)
    for sentence, labels in zip(examples.metadata, sentences, strict=True):
        predicted[tuple(sentence.positions.T)] = [LABELS.index(label) for label in labels]
    labels = np.stack([task.example(r, None)['labels'] for r in examples.rows]) - 1
    return {'predicted': predicted, 'labels': labels}


@pytest.mark.parametrize('length', [12, 5])
def test_entity_scores_match_values_computed_by_hand(vocabulary, length):
    task = make_task(vocabulary, length)  # with length 5, sentences are split into several rows
    examples = build_examples(task)
    scores = task.scores(make_outputs(task, examples, PREDICTED), examples.metadata)
    # Of the true entities PER(0-1), LOC(3) and LOC(1-2), only the first is predicted. The predictions LOC(1-1) and
    # PER(3-3), an I- without a B-, are wrong.
    assert scores['entity_precision'] == pytest.approx(1 / 3)
    assert scores['entity_recall'] == pytest.approx(1 / 3)
    assert scores['entity_f1'] == pytest.approx(1 / 3)
    assert scores['entities']['PER'] == pytest.approx(
        {'precision': 0.5, 'recall': 1, 'f1': 2 / 3, 'support': 1}
    )
    # F1 of O is 6/9, of B-PER 1, of I-PER 2/3 and of B-LOC 2/3; I-LOC is never predicted.
    assert scores['f1_macro'] == pytest.approx((2 / 3 + 1 + 2 / 3 + 2 / 3 + 0) / 5)
    assert json.dumps(scores['entities']['LOC']['support']) == '2'
    assert scores['words'] == 9
    assert scores['majority'] == 4 / 9
    assert scores['labels']['O'] == pytest.approx(
        {'precision': 3 / 5, 'recall': 3 / 4, 'f1': 6 / 9, 'support': 4}
    )
    text = task.format_scores(scores)
    assert 'entity_f1  0.3333' in text
    assert 'words  9\n' in text
    assert 'PER' in text


def test_data_without_entities_has_f1_of_zero(vocabulary):
    task = make_task(vocabulary)
    examples = build_examples(task, [['O', 'O']])
    scores = task.scores(make_outputs(task, examples, [['O', 'O']]), examples.metadata)
    assert scores['entity_f1'] == 0
    assert scores['entities'] == {}


def test_incomplete_sentences_do_not_count(vocabulary):
    task = make_task(vocabulary, 5)
    examples = build_examples(task)
    outputs = make_outputs(task, examples, TRUE)
    scores = task.scores({k: v[:5] for k, v in outputs.items()}, examples.metadata)
    assert scores['words'] == 4
    with pytest.raises(UserError, match='The first 3 evaluation rows contain no complete sentence'):
        task.scores({k: v[:3] for k, v in outputs.items()}, examples.metadata)


def test_predictions_hold_labels_and_probabilities(vocabulary):
    task = make_task(vocabulary)
    examples = build_examples(task)
    outputs = make_outputs(task, examples, PREDICTED)
    probability = np.arange(outputs['predicted'].size).reshape(outputs['predicted'].shape) / 1000
    predictions = task.predictions({**outputs, 'probability': probability}, examples.metadata)
    expected = [float(probability[row, position]) for row, position in examples.metadata[1].positions]
    assert predictions[1] == {'prediction': PREDICTED[1], 'probability': expected}


def test_only_first_subwords_count_in_the_loss(vocabulary):
    task = make_task(vocabulary)
    examples = build_examples(task, [['B-PER', 'O']])
    batch = {k: jnp.asarray(v)[None] for k, v in task.example(examples.rows[0], None).items()}
    assert batch['labels'][0].tolist()[:6] == [0, 2, 0, 1, 0, 0]
    logits = np.random.default_rng(0).normal(size=(1, 12, 5)).astype(np.float32)
    result = task.loss(lambda *_: Output((), None, jnp.asarray(logits)), batch, None)
    chosen = logits[0, [1, 3]]
    expected = np.log(np.exp(chosen).sum(1)) - chosen[[0, 1], [1, 0]]
    assert float(result.losses['cross_entropy'].value()) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(result.losses['cross_entropy'].weight) == 2
    expected = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).max(-1)
    np.testing.assert_allclose(result.outputs['probability'], expected, rtol=1e-5)


def test_entities_need_bio_labels(vocabulary):
    with pytest.raises(UserError, match=r"label 'NOUN' is not B-X, I-X or O. Set task\.entities=false"):
        tag.Task(tag.Config(labels=('NOUN',), entities=True), TaggingConfig('x.conll'), vocabulary)


def test_predicted_entity_without_b_tag_lowers_the_precision(vocabulary):
    task = make_task(vocabulary)
    examples = build_examples(task, [['B-PER', 'O', 'O']])
    scores = task.scores(make_outputs(task, examples, [['B-PER', 'O', 'I-LOC']]), examples.metadata)
    assert (scores['entity_precision'], scores['entity_recall']) == (0.5, 1)
    assert scores['entities']['LOC'] == {'precision': 0, 'recall': 0, 'f1': 0, 'support': 0}


def test_predicted_label_without_true_words_counts_in_macro_f1(vocabulary):
    task = make_task(vocabulary, entities=False)
    examples = build_examples(task, [['O', 'O', 'O']])
    scores = task.scores(make_outputs(task, examples, [['O', 'O', 'B-LOC']]), examples.metadata)
    assert scores['f1_macro'] == pytest.approx((4 / 5 + 0) / 2)


def test_most_confident_wrong_word_is_the_mistake(vocabulary):
    task = make_task(vocabulary)
    gold = task.gold(Record('a', {'tokens': ['Anna', 'left', 'Rome'], 'tags': ['B-PER', 'O', 'B-LOC']}))
    prediction = {'prediction': ['O', 'O', 'O'], 'probability': [0.6, 0.9, 0.7]}
    assert task.mistake(gold, prediction) == (0.7, "'Rome' is O instead of B-LOC (70.0%)")
    assert task.mistake(gold, {**prediction, 'prediction': ['B-PER', 'O', 'B-LOC']}) is None
