"""Exact match and F1 follow the rules of the official SQuAD and MLQA scripts."""

import pytest

from bert_jax.data.squad_metrics import normalize, score


@pytest.mark.parametrize(
    ('predicted', 'answers', 'squad1', 'squad2'),
    [
        ('The Cat!', ['cat'], (1, 1), (1, 1)),
        ('black cat', ['a cat', 'the black dog cat'], (0, 0.8), (0, 0.8)),
        ('', ['cat'], (0, 0), (0, 0)),
        ('cat', [], (0, 0), (0, 0)),
        ('', [], (1, 0), (1, 1)),
        ('the', ['a'], (1, 0), (1, 1)),
        ('dog', ['the', 'dog'], (1, 1), (1, 1)),
        ('dog dog cat', ['dog'], (0, 0.5), (0, 0.5)),
        ('U.S.', ['us'], (1, 1), (1, 1)),
        ('台北', ['台北'], (1, 1), (1, 1)),
    ],
)
def test_scores_follow_both_squad_scripts(predicted, answers, squad1, squad2):
    assert score(predicted, answers, no_answer=False) == pytest.approx(squad1)
    assert score(predicted, answers, no_answer=True) == pytest.approx(squad2)


@pytest.mark.parametrize(
    ('language', 'text', 'expected'),
    [
        ('', 'Die «Katze», the cat!', 'die «katze» cat'),
        ('en', 'Die «Katze», the cat!', 'die katze cat'),
        ('de', 'Die «Katze» des Hauses, the cat', 'katze hauses the cat'),
        ('es', '¿Los perros y la gata?', 'perros y gata'),
        ('vi', 'những con mèo của tôi', 'con mèo tôi'),
        ('hi', 'एक बिल्ली।', 'एक बिल्ली'),
        ('ar', 'القطة والكلب، البيت', 'قطة و كلب بيت'),
        ('zh', '台北101，大樓 Tower', '台 北 101 大 樓 tower'),
        ('zh', 'the cat', 'the cat'),
    ],
)
def test_normalize_uses_the_rules_of_the_language(language, text, expected):
    assert normalize(text, language) == expected


def test_chinese_characters_count_as_words():
    """Three of four characters are found: precision 1, recall 3/4."""
    assert score('台北市', ['台北市區'], language='zh') == pytest.approx((0, 6 / 7))
    assert score('台北市', ['台北市區']) == (0, 0)
