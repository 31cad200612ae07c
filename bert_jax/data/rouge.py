"""ROUGE of generated texts in any language (Lin 2004), with the scores of rouge-score for English."""

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

from bert_jax.data import scripts

KINDS = ('rouge1', 'rouge2', 'rougeL', 'rougeLsum')
Words = Literal['english', 'unicode']
_UNSPACED = re.compile(f'[{scripts.UNSPACED}]')
_HAN = re.compile('[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]')
_FULL_WIDTH_END = re.compile('(?<=[。！？])')
_ABBREVIATIONS = frozenset(
    ['dr', 'mr', 'mrs', 'ms', 'prof', 'st', 'jr', 'sr', 'vs', 'etc', 'e.g', 'i.e', 'u.s', 'u.k', 'a.m', 'p.m']
)


def split_words(text: str) -> list[str]:
    """Split a text of any language into lowercase words; in scripts without spaces, each character is a word."""
    text = unicodedata.normalize('NFC', text).lower()
    spaced = (
        f' {c} ' if _UNSPACED.match(c) else c if unicodedata.category(c)[0] in 'LMN' else ' '
        for c in text
    )  # fmt: skip
    return ''.join(spaced).split()


class _UnicodeWords:
    """The tokenizer for `RougeScorer` that splits words with `split_words`."""

    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


def is_english(texts: Sequence[str]) -> bool:
    """Return whether at most 0.5 % of the letters of all texts are other than a to z."""
    letters = [c for text in texts for c in text if c.isalpha()]
    return sum(not c.isascii() for c in letters) <= 0.005 * len(letters)


def bleu_tokenizer(texts: Sequence[str]) -> str:
    """Return the tokenizer of sacreBLEU: 'zh' for Chinese, 'char' for other scripts without spaces, otherwise '13a'."""
    if scripts.separates_words(texts):
        return '13a'
    unspaced = (c for text in texts for c in text if c.isalpha() and _UNSPACED.match(c))
    return 'zh' if all(map(_HAN.match, unspaced)) else 'char'


@functools.cache
def _sentence_splitter():  # type: ignore[no-untyped-def]
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = {*_ABBREVIATIONS}
    return PunktSentenceTokenizer(parameters)


def split_sentences(text: str) -> str:
    """Put each sentence on a separate line, as ROUGE-Lsum expects."""
    lines = _FULL_WIDTH_END.sub('\n', text).split('\n')
    return '\n'.join(sentence for line in lines for sentence in _sentence_splitter().tokenize(line))


def rouge(targets: Sequence[str], texts: Sequence[str], words: Words) -> dict[str, float]:
    """Return the mean F1 of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, in percent.

    Args:
      targets: reference texts.
      texts: generated texts.
      words: 'english' compares stems of runs of a-z and 0-9, as rouge-score does; 'unicode' compares the words of
        `split_words`.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(KINDS, use_stemmer=True, tokenizer=_UnicodeWords() if words == 'unicode' else None)
    pairs = zip(map(split_sentences, targets), map(split_sentences, texts), strict=True)
    scores = [scorer.score(target, text) for target, text in pairs]
    return {kind: 100 * float(np.mean([s[kind].fmeasure for s in scores])) for kind in KINDS}
