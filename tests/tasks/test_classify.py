"""The classification task: examples, loss, and scores compared with values computed by hand."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.labeled import LabeledConfig
from bert_jax.tasks import classify

LABELS = ('cat', 'dog', 'a very long name')


@pytest.fixture(scope='module')
def vocabulary():
    return tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(50))])


def make_task(vocabulary=None, labels=LABELS, data=None):
    return classify.Task(classify.Config(labels=labels), data or LabeledConfig(length=12), vocabulary)


def make_outputs(true, predicted, classes=3):
    return {'label': np.array(true), 'logits': np.eye(classes)[predicted] * 2 - 0.5}


def test_example_has_tokens_segments_and_padding(vocabulary):
    row = rows_lib.pack(np.array([7, 8]), np.array([9]), 2, 12, vocabulary)
    batch = make_task(vocabulary).example(row, np.random.default_rng(0))
    assert batch['tokens'].tolist() == row[rows_lib.HEADER :].tolist()
    assert batch['segments'].tolist() == [0] * 4 + [1] * 2 + [0] * 6
    assert batch['valid'].tolist() == [True] * 6 + [False] * 6
    assert (batch['label'], batch['row_weight']) == (2, 1)
    assert {k: v.dtype.name for k, v in batch.items()} == {
        'tokens': 'int32',
        'segments': 'int32',
        'valid': 'bool',
        'label': 'int32',
        'row_weight': 'float32',
    }


def test_single_text_is_all_first_segment(vocabulary):
    row = rows_lib.pack(np.array([7, 8]), None, 0, 12, vocabulary)
    assert not make_task(vocabulary).example(row, np.random.default_rng(0))['segments'].any()


TRUE = [0, 0, 0, 0, 1, 1, 1, 2]
PREDICTED = [0, 0, 0, 1, 1, 1, 2, 0]


def test_confusion_matrix_is_true_by_predicted():
    scores = make_task().scores(make_outputs(TRUE, PREDICTED), None)
    assert scores['confusion'] == [[3, 1, 0], [0, 2, 1], [1, 0, 0]]


def test_scores_match_values_computed_by_hand():
    scores = make_task().scores(make_outputs(TRUE, PREDICTED), None)
    # F1 is 2 TP / (2 TP + FP + FN): 6/8, 4/6 and 0.
    assert scores['f1_macro'] == pytest.approx((6 / 8 + 4 / 6 + 0) / 3)
    assert scores['majority'] == 4 / 8
    # (correct * n - sum of true * predicted counts) / square root of the product of both variances
    covariance = 5 * 8 - (4 * 4 + 3 * 3 + 1 * 1)
    assert scores['matthews'] == pytest.approx(covariance / np.sqrt((64 - 26) * (64 - 26)))


def test_binary_scores():
    scores = make_task(labels=('no', 'yes')).scores(
        make_outputs([1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 1], 2), None
    )
    assert scores['f1_macro'] == pytest.approx(2 / 3)
    assert scores['matthews'] == pytest.approx((2 * 2 - 1 * 1) / 9)
    assert scores['confusion'] == [[2, 1], [1, 2]]
    assert scores['majority'] == 0.5


def test_scores_match_scikit_learn():
    rng = np.random.default_rng(0)
    true, logits = rng.integers(0, 3, 200), rng.normal(size=(200, 3))
    scores = make_task().scores({'label': true, 'logits': logits}, None)
    predicted = logits.argmax(1)
    assert scores['f1_macro'] == pytest.approx(metrics.f1_score(true, predicted, average='macro'))
    assert scores['matthews'] == pytest.approx(metrics.matthews_corrcoef(true, predicted))
    assert scores['confusion'] == metrics.confusion_matrix(true, predicted).tolist()


def test_class_that_is_neither_true_nor_predicted_does_not_count_in_macro_f1():
    scores = make_task().scores(make_outputs([0, 0, 1, 1], [0, 0, 1, 1]), None)
    assert scores['confusion'] == [[2, 0, 0], [0, 2, 0], [0, 0, 0]]
    assert scores['f1_macro'] == 1
    assert scores['matthews'] == pytest.approx(1)


@pytest.mark.parametrize('predicted', [[1, 1, 1], [0, 1, 2]])
def test_single_true_class_is_scored_without_warning(predicted):
    scores = make_task().scores(make_outputs([1, 1, 1], predicted), None)
    assert scores['majority'] == 1
    assert scores['matthews'] == 0
    assert sum(map(sum, scores['confusion'])) == 3


def test_scores_are_json_serializable():
    scores = make_task().scores(make_outputs(TRUE, PREDICTED), None)
    assert json.loads(json.dumps(scores)) == scores


def test_table_names_rows_and_columns():
    task = make_task()
    scores = {'f1_macro': 0.47222, 'matthews': 1.0, 'confusion': [[3, 1, 0], [0, 2000, 1], [1, 0, 7]]}
    lines = task.format_scores(scores).splitlines()
    assert [line.split() for line in lines[:2]] == [['f1_macro', '0.4722'], ['matthews', '1.0000']]
    assert lines[2] == ''
    header, *body = lines[3:]
    assert header.split('  ')[-1] == '(predicted)'
    assert [label for label in LABELS if label in header] == list(LABELS)
    assert [line.split()[-3:] for line in body] == [['3', '1', '0'], ['0', '2,000', '1'], ['1', '0', '7']]
    assert [line.strip().startswith(label) for line, label in zip(body, LABELS, strict=True)] == [True] * 3
    end = header.index('dog') + len('dog')
    assert all(line[end - 1].isdigit() and line[end] == ' ' for line in body), (
        'numbers are aligned with their class names'
    )


def test_loss_counts_only_real_rows():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]]))
    batch = {k: jnp.zeros((3, 12), jnp.int32) for k in ('tokens', 'segments', 'valid')}
    batch |= {'label': jnp.array([0, 1, 2]), 'row_weight': jnp.array([1.0, 1.0, 0.0])}
    result = make_task().loss(types.SimpleNamespace(class_logits=lambda *_: logits), batch, None)
    loss, accuracy = result.losses['cross_entropy'], result.metrics['accuracy']
    assert float(loss.total) == pytest.approx(-np.log(0.5) - np.log(0.1), rel=1e-6)
    assert float(loss.weight) == 2
    assert (float(accuracy.total), float(accuracy.weight)) == (1, 2)
    assert np.array_equal(result.outputs['label'], batch['label'])
    assert np.array_equal(result.outputs['logits'], logits)


@pytest.mark.parametrize('labels', [(), ('only',)])
def test_fewer_than_two_classes_are_rejected(labels):
    with pytest.raises(UserError, match=r'task\.labels=.* has fewer than two classes'):
        make_task(labels=labels)


def test_data_with_one_class_are_rejected(tmp_path):
    (tmp_path / 'train.csv').write_text('text,label\na,pos\nb,pos\n')
    data = LabeledConfig(f'{tmp_path}/{{split}}.csv')
    with pytest.raises(
        UserError, match=r"The training examples of .* have only the class 'pos' in the field 'label'"
    ):
        classify.Task.complete_config(classify.Config(), data)


@pytest.fixture
def source(tmp_path):
    for split, n in (('train', 20), ('dev', 5)):
        lines = [json.dumps({'text': f'w{i}', 'label': 'ab'[i % 2]}) for i in range(n)]
        (tmp_path / f'{split}.jsonl').write_text('\n'.join(lines))
    return LabeledConfig(f'{tmp_path}/{{split}}.jsonl', eval_split='dev', length=12, limit=3)


def test_classes_come_from_the_data_unless_set(source):
    assert classify.Task.complete_config(classify.Config(), source).labels == ('a', 'b')
    config = classify.Config(labels=('b', 'a'))
    assert classify.Task.complete_config(config, source) == config


def test_limit_applies_only_to_training(vocabulary, source):
    task = make_task(vocabulary, ('a', 'b'), source)
    assert task.train_rows().shape == (3, 4 + 12)
    assert task.eval_examples().rows.shape == (5, 4 + 12)
    assert task.eval_examples().rows[:, 2].tolist() == [0, 1, 0, 1, 0]
