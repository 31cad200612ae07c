"""ROUGE: the scores of rouge-score for English, and words of any language."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from bert_jax.data import rouge

TARGETS = ['The cats sat on the mat. Dr. Smith saw it.', 'A dog barked! It ran away.', 'It rains.']
TEXTS = ['Dr. Smith saw a cat. It sat on mats.', 'It ran away. A dog barked loudly.', 'Sun.']


def test_english_scores_are_those_of_rouge_score():
    scores = rouge.rouge(TARGETS, TEXTS, 'english')
    scorer = RougeScorer(rouge.KINDS, use_stemmer=True)
    lines = [[text.replace('. ', '.\n').replace('Dr.\n', 'Dr. ').replace('! ', '!\n') for text in texts]
             for texts in (TARGETS, TEXTS)]  # fmt: skip
    for kind in rouge.KINDS:
        each = [scorer.score(a, b)[kind].fmeasure for a, b in zip(*lines, strict=True)]
        assert scores[kind] == pytest.approx(100 * np.mean(each)), kind
    assert scores['rougeLsum'] > scores['rougeL'] + 5, 'the order of sentences does not matter'


@pytest.mark.parametrize(
    'text',
    ['我们明天去北京。你呢？', 'Мы едем домой. Пора!', 'Über die Brücke fährt ein Zug.', 'हम घर जा रहे हैं।', 'เราไปบ้าน'],
)  # fmt: skip
def test_identical_texts_score_100_in_every_language(text):
    scores = rouge.rouge([text], [text], 'unicode')
    assert scores == pytest.approx(dict.fromkeys(rouge.KINDS, 100))
    assert rouge.rouge([text], ['abc'], 'unicode')['rouge1'] == 0


def test_words_of_languages():
    assert rouge.split_words('Straße, übers Мос\u0301т 3x') == ['straße', 'übers', 'мос\u0301т', '3x']
    assert rouge.split_words('去北京ok吗？') == ['去', '北', '京', 'ok', '吗']
    assert rouge.split_words('हम घर') == ['हम', 'घर']
    assert rouge.split_words('U\u0308ber') == ['über']


def test_umlauts_are_no_word_boundaries():
    # rouge-score reads both as the words 'f' and 'r'.
    assert rouge.rouge(['für'], ['fär'], 'unicode')['rouge1'] == 0
    assert rouge.rouge(['für'], ['fär'], 'english')['rouge1'] == 100


def test_language_is_recognized():
    assert rouge.is_english(['A café.', 'The rest is plain. ' * 20])
    assert not rouge.is_english(['Der Zug fährt über die Brücke.'])
    assert rouge.bleu_tokenizer(['我们明天去北京 OK']) == 'zh'
    assert rouge.bleu_tokenizer(['東京へ行きます']) == rouge.bleu_tokenizer(['เราไปบ้าน']) == 'char'
    assert rouge.bleu_tokenizer(['Мы едем домой']) == rouge.bleu_tokenizer(['']) == '13a'


def test_full_width_stops_end_sentences():
    assert rouge.split_sentences('走了。来了！ok. He left.') == '走了。\n来了！\nok.\nHe left.'
