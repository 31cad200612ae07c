"""Exact match and F1 of answers, as the official scripts of SQuAD and MLQA compute them."""

import collections
import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Literal

Language = Literal['', 'en', 'es', 'de', 'vi', 'hi', 'ar', 'zh']
# The articles that MLQA removes (Lewis et al. 2020, section 5): a prefix in Arabic, none in Hindi and Chinese.
_ARTICLES = {
    'en': r'\b(a|an|the)\b',
    'es': r'\b(un|una|unos|unas|el|la|los|las)\b',
    'de': r'\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b',
    'vi': r'\b(của|là|cái|chiếc|những)\b',
    'ar': 'ال',
}
_ASCII_PUNCTUATION = frozenset(string.punctuation)
_HAN = re.compile('([\u4e00-\u9fa5])')


def normalize(text: str, language: Language = '') -> str:
    """Lowercase a text and remove punctuation, articles and extra spaces.

    An empty `language` follows SQuAD (Rajpurkar et al. 2016, section 6.1): English articles and ASCII punctuation.
    Any other follows MLQA: articles of the language, Unicode punctuation, and each Chinese character as one word.
    """
    text = ''.join(c for c in text.lower() if not _is_punctuation(c, unicode=bool(language)))
    if articles := _ARTICLES.get(language or 'en'):
        text = re.sub(articles, ' ', text)
    if language == 'zh':
        text = _HAN.sub(r' \1 ', text)
    return ' '.join(text.split())


def _is_punctuation(character: str, unicode: bool) -> bool:
    return character in _ASCII_PUNCTUATION or (unicode and unicodedata.category(character)[0] == 'P')


def score(
    predicted: str, answers: Sequence[str], no_answer: bool = False, language: Language = ''
) -> tuple[float, float]:
    """Return the exact match and the word F1 of an answer, each the maximum over the correct answers.

    Args:
      predicted: predicted answer; empty for no answer.
      answers: correct answers; empty for an unanswerable question.
      no_answer: whether to follow SQuAD 2.0, which ignores correct answers that normalize to nothing and scores
        an empty prediction for an unanswerable question with F1 1. SQuAD 1.1 gives it F1 0.
      language: language for `normalize`.
    """
    prediction, references = normalize(predicted, language), [normalize(a, language) for a in answers]
    if no_answer:
        references = [reference for reference in references if reference]
    references = references or ['']
    exact = max(float(prediction == reference) for reference in references)
    return exact, max(_f1(prediction.split(), reference.split(), no_answer) for reference in references)


def _f1(predicted: Sequence[str], answer: Sequence[str], no_answer: bool) -> float:
    if no_answer and not (predicted and answer):
        return float(predicted == answer)
    common = sum((collections.Counter(predicted) & collections.Counter(answer)).values())
    return 2 * common / (len(predicted) + len(answer)) if common else 0.0
