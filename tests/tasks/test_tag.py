"""Tagging: the loss counts words, and scores are those of scikit-learn and seqeval."""

import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.records import Record
from bert_jax.data.tagging import TaggedConfig
from bert_jax.modeling.heads import HeadOutput
from bert_jax.tasks import tag

LABELS = ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
TRUE = [['B-PER', 'I-PER', 'O', 'B-LOC'], ['O', 'B-LOC', 'I-LOC', 'O'], ['O']]
PREDICTED = [['B-PER', 'I-PER', 'O', 'O'], ['O', 'B-LOC', 'O', 'I-PER'], ['O']]


@pytest.fixture(scope='module')
def vocabulary():
    return tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(50)), 'x', '##y'])


def task(vocabulary=None, length=12, **settings):
    config = tag.Config(labels=LABELS, **{'entities': True, **settings})
    return tag.Task(config, TaggedConfig('x.conll', length=length), vocabulary)


def examples(made, sentences=TRUE, word='xy'):
    return made.examples(
        [Record(f'example {i}', {'tokens': [word] * len(s), 'tags': s}) for i, s in enumerate(sentences)]
    )


def outputs(made, found, sentences):
    """What a model would give that predicts these labels, and nonsense between the words."""
    predicted = np.full((len(found.rows), 12), 3)
    for sentence, labels in zip(found.about, sentences, strict=True):
        predicted[tuple(sentence.places.T)] = [LABELS.index(label) for label in labels]
    labels = np.stack([made.example(r, None)['labels'] for r in found.rows]) - 1
    return {'predicted': predicted, 'labels': labels}


@pytest.mark.parametrize('length', [12, 5])
def test_scores_of_entities_are_worked_out_by_hand(vocabulary, length):
    made = task(vocabulary, length)  # in rows of five the sentences go on in further rows
    found = examples(made)
    got = made.scores(outputs(made, found, PREDICTED), found.about)
    # Of the right entities PER(0-1), LOC(3) and LOC(1-2) the first is found; LOC(1-1) is wrong, and an I- alone is none.
    assert got['entity_precision'] == pytest.approx(1 / 2)
    assert got['entity_recall'] == pytest.approx(1 / 3)
    assert got['entity_f1'] == pytest.approx(0.4)
    assert got['entities']['PER'] == {'precision': 1, 'recall': 1, 'f1': 1, 'support': 1}
    assert got['entities']['LOC']['support'] == 2
    assert got['words'] == 9
    assert got['majority'] == 4 / 9
    assert got['labels']['O'] == pytest.approx(
        {'precision': 3 / 5, 'recall': 3 / 4, 'f1': 6 / 9, 'support': 4}
    )
    text = made.describe(got)
    assert 'entity_f1  0.4000' in text
    assert 'PER' in text


def test_no_entities_at_all_are_no_error(vocabulary):
    made = task(vocabulary)
    found = examples(made, [['O', 'O']])
    got = made.scores(outputs(made, found, [['O', 'O']]), found.about)
    assert got['entity_f1'] == 0
    assert got['entities'] == {}


def test_sentences_that_were_cut_off_do_not_count(vocabulary):
    made = task(vocabulary, 5)
    found = examples(made)
    whole = outputs(made, found, TRUE)
    got = made.scores({k: v[:5] for k, v in whole.items()}, found.about)
    assert got['words'] == 4
    with pytest.raises(UserError, match='no whole sentence among 3 rows'):
        made.scores({k: v[:3] for k, v in whole.items()}, found.about)


def test_predictions_are_words_with_labels(vocabulary):
    made = task(vocabulary)
    found = examples(made)
    whole = outputs(made, found, PREDICTED)
    sure = np.arange(whole['predicted'].size).reshape(whole['predicted'].shape) / 1000
    got = made.predictions({**whole, 'probability': sure}, found.about)
    expected = [float(sure[row, place]) for row, place in found.about[1].places]
    assert got[1] == {'tokens': ['xy'] * 4, 'labels': PREDICTED[1], 'probabilities': expected}


def test_only_first_pieces_count_in_the_loss(vocabulary):
    made = task(vocabulary)
    found = examples(made, [['B-PER', 'O']])
    batch = {k: jnp.asarray(v)[None] for k, v in made.example(found.rows[0], None).items()}
    assert batch['labels'][0].tolist()[:6] == [0, 2, 0, 1, 0, 0]
    logits = np.random.default_rng(0).normal(size=(1, 12, 5)).astype(np.float32)
    result = made.loss(lambda *_: HeadOutput((), None, jnp.asarray(logits)), batch, None)
    chosen = logits[0, [1, 3]]
    expected = np.log(np.exp(chosen).sum(1)) - chosen[[0, 1], [1, 0]]
    assert float(result.terms['cross_entropy'].value()) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(result.terms['cross_entropy'].weight) == 2
    likeliest = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).max(-1)
    np.testing.assert_allclose(result.outputs['probability'], likeliest, rtol=1e-5)


def test_entities_need_bio_labels(vocabulary):
    with pytest.raises(UserError, match=r"label 'NOUN' is not B-X, I-X or O: set task\.entities=false"):
        tag.Task(tag.Config(labels=('NOUN',), entities=True), TaggedConfig('x.conll'), vocabulary)


@pytest.mark.parametrize(('true', 'predicted'), [(['O'], ['I-PER']), (['I-PER'], ['I-PER']), (['O'], ['O'])])
def test_a_kind_without_a_beginning_is_no_entity(vocabulary, true, predicted):
    made = task(vocabulary)
    found = examples(made, [true])
    got = made.scores(outputs(made, found, [predicted]), found.about)
    assert got['entity_f1'] == 0
    assert got['entities'] == {}
