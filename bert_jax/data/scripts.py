"""Scripts: which texts separate words by spaces."""

import re
import unicodedata
from collections.abc import Iterable

# Characters of scripts without spaces between words, as ranges of a regular expression: Thai, Lao, Burmese, Khmer, kana
# and Chinese.
UNSPACED = (
    '\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f'
)
_UNSPACED = re.compile(f'[{UNSPACED}]')
_LETTER = re.compile(r'[^\W\d_]')


def is_spaced(character: str) -> bool:
    """Return whether a character is a letter, mark or number of a script that separates words by spaces."""
    return unicodedata.category(character)[0] in 'LMN' and not _UNSPACED.match(character)


def separates_words(texts: Iterable[str]) -> bool:
    """Return whether at least half of the letters of all texts are of scripts that separate words by spaces."""
    unspaced = total = 0
    for text in texts:
        letters = ''.join(_LETTER.findall(text))
        unspaced += len(_UNSPACED.findall(letters))
        total += len(letters)
    return 2 * unspaced <= total
