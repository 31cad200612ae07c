"""The question-answering task: joint span search, and scores as in the official scripts."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.data import question_answering
from bert_jax.data.question_answering import QuestionConfig
from bert_jax.data.records import Record
from bert_jax.tasks import qa

CONTEXT = 'w1 w2 w3 w4 w5 w6 w7 w8'


def make_task(word_tokenizer, **settings):
    data = QuestionConfig('x.json', length=10, stride=2, max_question_length=2)
    return qa.Task(qa.Config(**settings), data, word_tokenizer)


def make_record(answers=('w3 w4',), context=CONTEXT, name='q'):
    spans = {'text': [*answers], 'answer_start': [context.index(a) for a in answers]}
    return Record('example 0', {'id': name, 'context': context, 'question': 'w20', 'answers': spans})


def make_outputs(examples, starts, ends, cls=0.0):
    """Return outputs with these logits of context tokens in every window that holds them, and -9 elsewhere."""
    (question,) = examples.metadata
    out = np.full((len(examples.rows), 10, 2), -9.0, np.float32)
    for row, window in zip(out, question.windows, strict=True):
        row[0] = cls / 2
        for i, values in enumerate((starts, ends)):
            for token, value in values.items():
                if window.start <= token < window.stop:
                    row[window.row_offset + token - window.start, i] = value
    return {'logits': out}


def test_answer_is_the_text_between_the_best_start_and_end(word_tokenizer):
    task = make_task(word_tokenizer)
    examples = task.make_examples([make_record()])
    assert len(examples.rows) > 1
    (prediction,) = task.predictions(make_outputs(examples, {2: 5, 6: 4}, {3: 5, 1: 9}), examples.metadata)
    assert prediction['prediction'] == 'w3 w4'  # an end before the start is ignored
    assert prediction['n_best'][0]['probability'] == max(b['probability'] for b in prediction['n_best'])
    assert task.scores(make_outputs(examples, {2: 5}, {3: 5}), examples.metadata)['exact_match'] == 100


def test_answers_have_at_most_the_maximum_length(word_tokenizer):
    task = make_task(word_tokenizer, max_answer_length=2)
    examples = task.make_examples([make_record()])
    (prediction,) = task.predictions(make_outputs(examples, {1: 9, 3: 5}, {3: 9}), examples.metadata)
    assert prediction['prediction'] == 'w4'


def test_threshold_decides_for_no_answer(word_tokenizer):
    examples = make_task(word_tokenizer).make_examples([make_record(())])
    outputs = make_outputs(examples, {2: 5}, {3: 5}, cls=12)
    for threshold, answer in ((0, ''), (1.9, ''), (2.1, 'w3 w4')):
        (prediction,) = make_task(word_tokenizer, no_answer=True, no_answer_threshold=threshold).predictions(
            outputs, examples.metadata
        )
        assert prediction['prediction'] == answer
        assert prediction['no_answer_score'] == pytest.approx(2)
    assert make_task(word_tokenizer).predictions(outputs, examples.metadata)[0]['prediction'] == 'w3 w4'


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 8), st.integers(0, 10**6))
def test_best_spans_match_exhaustive_search(size, max_length, n, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(size + 4, 2))
    window = question_answering.Window(2, 7, 7 + size, rng.random(size) < 0.7)
    expected = sorted(
        (
            (scores[2 + a, 0] + scores[2 + b, 1], 7 + a, 7 + b)
            for a, b in itertools.product(range(size), repeat=2)
            if a <= b < a + max_length and window.is_max_context[a]
        ),
        reverse=True,
    )
    spans = sorted(qa.best_spans(scores, window, n, max_length), reverse=True)
    assert [s[1:] for s in spans] == [e[1:] for e in expected[:n]]
    np.testing.assert_allclose([s[0] for s in spans], [e[0] for e in expected[:n]])


def test_best_threshold_is_found(word_tokenizer):
    """Two of the four questions have an answer; no threshold is right for all."""
    task = make_task(word_tokenizer, no_answer=True)
    records = [
        make_record(('w3 w4',), name='a'),
        make_record((), name='b'),
        make_record(('w3 w4',), name='c'),
        make_record((), name='d'),
    ]
    examples = task.make_examples(records)
    gaps = {'a': -3, 'b': -2, 'c': -1, 'd': 4}
    parts = [
        make_outputs(task.make_examples([r]), {2: 5}, {3: 5}, cls=10 + gaps[r.fields['id']])['logits']
        for r in records
    ]
    scores = task.scores({'logits': np.concatenate(parts)}, examples.metadata)
    assert scores['exact_match'] == 75  # at threshold 0, a and c are answered correctly, b wrongly, and d not
    assert scores['has_answer_exact_match'] == 100
    assert scores['no_answer_exact_match'] == 50
    assert scores['best_exact_match'] == 75
    best = task.scores({'logits': np.concatenate(parts)}, examples.metadata)['best_f1_threshold']
    again = make_task(word_tokenizer, no_answer=True, no_answer_threshold=best).scores(
        {'logits': np.concatenate(parts)}, examples.metadata
    )
    assert again['f1'] == scores['best_f1']


def test_incomplete_questions_do_not_count(word_tokenizer):
    task = make_task(word_tokenizer)
    examples = task.make_examples([make_record(name='a'), make_record(name='b')])
    n = examples.metadata[1].first_row + 1
    assert task.scores({'logits': np.zeros((n, 10, 2))}, examples.metadata)['questions'] == 1


def test_questions_with_equal_ids_are_scored_separately(word_tokenizer):
    """The languages of XQuAD have the same ids."""
    task = make_task(word_tokenizer)
    examples = task.make_examples([make_record(('w3 w4',)), make_record(('w5',))])
    parts = [
        make_outputs(task.make_examples([r]), {a: 5}, {b: 5})['logits']
        for r, a, b in ((make_record(('w3 w4',)), 2, 3), (make_record(('w5',)), 4, 4))
    ]
    assert task.scores({'logits': np.concatenate(parts)}, examples.metadata)['exact_match'] == 100


def test_any_text_is_wrong_for_a_question_without_answer(word_tokenizer):
    """Even '!', of which normalization leaves nothing: the official threshold search counts any text as an answer."""
    task = make_task(word_tokenizer, no_answer=True)
    examples = task.make_examples([make_record((), context='! w2')])
    scores = task.scores(make_outputs(examples, {0: 5}, {0: 5}, cls=0), examples.metadata)
    assert (scores['exact_match'], scores['best_exact_match']) == (100, 100)
    assert scores['best_exact_match_threshold'] < -10


def test_any_correct_answer_is_no_mistake(word_tokenizer):
    task = make_task(word_tokenizer)
    gold = task.gold(make_record(('w3 w4', 'w4', 'w4')))
    assert task.mistake(gold, {'prediction': 'W4.', 'probability': 0.5}) is None
    mistake = task.mistake(gold, {'prediction': '', 'probability': 0.5})
    assert mistake == (0.5, '(no answer) instead of w3 w4 or w4 (50.0%)')
