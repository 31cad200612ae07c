"""Question answering: spans chosen together, and scores as the official scripts count them."""

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


def task(words, **settings):
    data = QuestionConfig('x.json', length=10, stride=2, question_length=2)
    return qa.Task(qa.Config(**settings), data, words)


def record(answers=('w3 w4',), context=CONTEXT, name='q'):
    spans = {'text': [*answers], 'answer_start': [context.index(a) for a in answers]}
    return Record('example 0', {'id': name, 'context': context, 'question': 'w20', 'answers': spans})


def logits(found, starts, ends, cls=0.0):
    """Scores that each window gives to tokens of the context."""
    (question,) = found.about
    out = np.full((len(found.rows), 10, 2), -9.0, np.float32)
    for row, window in zip(out, question.windows, strict=True):
        row[0] = cls / 2
        for i, values in enumerate((starts, ends)):
            for token, value in values.items():
                if window.start <= token < window.stop:
                    row[window.first + token - window.start, i] = value
    return {'logits': out}


def test_the_answer_is_cut_from_the_text_between_the_best_start_and_end(words):
    made = task(words)
    found = made.examples([record()])
    assert len(found.rows) > 1
    (got,) = made.predictions(logits(found, {2: 5, 6: 4}, {3: 5, 1: 9}), found.about)
    assert got['answer'] == 'w3 w4'  # an end before its start is no answer
    assert got['n_best'][0]['probability'] == max(b['probability'] for b in got['n_best'])
    assert made.scores(logits(found, {2: 5}, {3: 5}), found.about)['exact_match'] == 100


def test_a_length_limit(words):
    made = task(words, answer_length=2)
    found = made.examples([record()])
    (got,) = made.predictions(logits(found, {1: 9, 3: 5}, {3: 9}), found.about)
    assert got['answer'] == 'w4'


def test_no_answer_by_the_threshold(words):
    found = task(words).examples([record(())])
    scores = logits(found, {2: 5}, {3: 5}, cls=12)
    for threshold, answer in ((0, ''), (1.9, ''), (2.1, 'w3 w4')):
        (got,) = task(words, no_answer=True, threshold=threshold).predictions(scores, found.about)
        assert got['answer'] == answer
        assert got['no_answer_score'] == pytest.approx(2)
    assert task(words).predictions(scores, found.about)[0]['answer'] == 'w3 w4'


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 8), st.integers(0, 10**6))
def test_best_spans_are_the_best_of_all(size, longest, n, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(size + 4, 2))
    window = question_answering.Window(2, 7, 7 + size, rng.random(size) < 0.7)
    expected = sorted(
        (
            (scores[2 + a, 0] + scores[2 + b, 1], 7 + a, 7 + b)
            for a, b in itertools.product(range(size), repeat=2)
            if a <= b < a + longest and window.best[a]
        ),
        reverse=True,
    )
    got = sorted(qa.best_spans(scores, window, n, longest), reverse=True)
    assert [g[1:] for g in got] == [e[1:] for e in expected[:n]]
    np.testing.assert_allclose([g[0] for g in got], [e[0] for e in expected[:n]])


def test_the_best_threshold_is_found(words):
    """Four questions, two with an answer; no threshold gets all right."""
    made = task(words, no_answer=True)
    records = [
        record(('w3 w4',), name='a'),
        record((), name='b'),
        record(('w3 w4',), name='c'),
        record((), name='d'),
    ]
    found = made.examples(records)
    gaps = {'a': -3, 'b': -2, 'c': -1, 'd': 4}
    parts = [
        logits(made.examples([r]), {2: 5}, {3: 5}, cls=10 + gaps[r.fields['id']])['logits'] for r in records
    ]
    got = made.scores({'logits': np.concatenate(parts)}, found.about)
    assert got['exact_match'] == 75  # at 0: a and c answered, b wrongly, d not
    assert got['has_answer_exact_match'] == 100
    assert got['no_answer_exact_match'] == 50
    assert got['best_exact_match'] == 75
    best = made.scores({'logits': np.concatenate(parts)}, found.about)['best_f1_threshold']
    again = task(words, no_answer=True, threshold=best).scores({'logits': np.concatenate(parts)}, found.about)
    assert again['f1'] == got['best_f1']


def test_questions_that_were_cut_off_do_not_count(words):
    made = task(words)
    found = made.examples([record(name='a'), record(name='b')])
    n = found.about[1].row + 1
    assert made.scores({'logits': np.zeros((n, 10, 2))}, found.about)['questions'] == 1


def test_questions_of_one_name_are_scored_each_by_its_own_answers(words):
    """As those of XQuAD are in several languages."""
    made = task(words)
    found = made.examples([record(('w3 w4',)), record(('w5',))])
    parts = [
        logits(made.examples([r]), {a: 5}, {b: 5})['logits']
        for r, a, b in ((record(('w3 w4',)), 2, 3), (record(('w5',)), 4, 4))
    ]
    assert made.scores({'logits': np.concatenate(parts)}, found.about)['exact_match'] == 100


def test_text_for_a_question_without_an_answer_is_wrong_at_every_threshold(words):
    """Also '!', which is no word: the official script counts any text as an answer when it looks for the threshold."""
    made = task(words, no_answer=True)
    found = made.examples([record((), context='! w2')])
    got = made.scores(logits(found, {0: 5}, {0: 5}, cls=0), found.about)
    assert (got['exact_match'], got['best_exact_match']) == (100, 100)
    assert got['best_exact_match_threshold'] < -10
