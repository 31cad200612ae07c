"""Answers to questions, scored as the official scripts of SQuAD and MLQA score them."""

import collections
import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Literal

Language = Literal['', 'en', 'es', 'de', 'vi', 'hi', 'ar', 'zh']
# What MLQA (Lewis et al. 2020, section 5) leaves out as articles; Arabic ones are prefixes, Hindi and Chinese have none.
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
    """Lower case without punctuation, articles and spare spaces.

    Without a language as SQuAD does (Rajpurkar et al. 2016, section 6.1): English articles and the punctuation of
    ASCII. With one as MLQA does: its articles, all of Unicode's punctuation, and each Chinese character a word.
    """
    kept = ''.join(c for c in text.lower() if not _is_punctuation(c, everywhere=bool(language)))
    if articles := _ARTICLES.get(language or 'en'):
        kept = re.sub(articles, ' ', kept)
    if language == 'zh':
        kept = _HAN.sub(r' \1 ', kept)
    return ' '.join(kept.split())


def _is_punctuation(character: str, everywhere: bool) -> bool:
    return character in _ASCII_PUNCTUATION or (everywhere and unicodedata.category(character)[0] == 'P')


def score(
    predicted: str, answers: Sequence[str], no_answer: bool = False, language: Language = ''
) -> tuple[float, float]:
    """Exact match and F1 of words, the best over all right answers.

    With `no_answer` (SQuAD 2.0) the empty answer is right where there is none, and right answers of
    articles and punctuation alone do not count; without it (1.1) such an answer has an F1 of 0.
    """
    found, right = normalize(predicted, language), [normalize(a, language) for a in answers]
    if no_answer:
        right = [a for a in right if a]
    right = right or ['']
    exact = max(float(found == a) for a in right)
    return exact, max(_f1(found.split(), a.split(), no_answer) for a in right)


def _f1(predicted: Sequence[str], answer: Sequence[str], no_answer: bool) -> float:
    if no_answer and not (predicted and answer):
        return float(predicted == answer)
    common = sum((collections.Counter(predicted) & collections.Counter(answer)).values())
    return 2 * common / (len(predicted) + len(answer)) if common else 0.0
