"""Words of scripts without spaces between them, for whole-word masking."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import logging
import os
import warnings
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import files, scripts
from bert_jax.data.formats.common import not_utf8_error
from bert_jax.data.tokenizer import Tokenizer

JIEBA = 'jieba'


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """Finds the words of a text, with jieba or with a list of words.

    Attributes:
      source: 'jieba', or a file with one word per line. From the start of a text to its end, the longest word of the
        file that fits is taken; a character without such a word is a word.
      version: version of jieba, or hash of the file.
    """

    source: str
    version: str

    def word_ends(self, text: str) -> list[int]:
        """Return the index of the character after each word."""
        if self.source == JIEBA:
            return [end for _, _, end in _import_jieba().tokenize(text)]
        words, longest = _read_words(self.source)
        ends, start = [], 0
        while start < len(text):
            sizes = range(min(longest.get(text[start], 1), len(text) - start), 1, -1)
            start += next((size for size in sizes if text[start : start + size] in words), 1)
            ends.append(start)
        return ends

    def continues_word(
        self, text: str, ids: np.ndarray, offsets: np.ndarray, tokenizer: Tokenizer
    ) -> np.ndarray:
        """Return whether each token of a text continues the word of the token before it: booleans [n].

        Args:
          text: the text.
          ids: its token ids [n].
          offsets: start and end of each token in characters [n, 2].
          tokenizer: the tokenizer, whose pieces of words in scripts with spaces are not separated.
        """
        is_inside = np.ones(len(text) + 1, bool)  # whether a character is in a word, but not its first
        is_inside[[0, *self.word_ends(text)]] = False
        is_spaced = np.array([False, *(c == ' ' or scripts.is_spaced(c) for c in text)])
        starts = offsets[:, 0]
        is_piece = is_spaced[starts] & is_spaced[starts + 1] & tokenizer.continues_word[ids]
        splits_character = np.diff(starts, prepend=-1) == 0  # in byte-level BPE
        return is_inside[starts] | is_piece | splits_character


def make(source: str) -> Segmenter | None:
    """Make the segmenter of `task.segmenter`; None if it is empty.

    Raises:
      UserError: if jieba is not installed, or the file is not UTF-8 text or has no words.
    """
    if not source:
        return None
    if source == JIEBA:
        _import_jieba()
        return Segmenter(source, importlib.metadata.version(JIEBA))
    if not os.path.isfile(os.path.expanduser(source)):
        raise UserError(
            f'task.segmenter={source!r} is not a file. Set it to a file with one word per line, or to jieba.'
        )
    if not _read_words(source)[0]:
        raise UserError(
            f'task.segmenter={source!r} has no word of two or more characters. Write one word at the beginning of each '
            'line.'
        )
    digest = hashlib.sha256('\n'.join(sorted(_read_words(source)[0])).encode())
    return Segmenter(source, digest.hexdigest()[:16])


@functools.cache
def _import_jieba() -> Any:
    try:
        with warnings.catch_warnings(action='ignore'):  # it uses modules that setuptools has deprecated
            import jieba  # type: ignore[import-not-found]
    except ModuleNotFoundError as e:
        raise UserError(
            'task.segmenter=jieba needs the package jieba. Run `pip install jieba`, or set task.segmenter to a file with '
            'one word per line.'
        ) from e
    jieba.setLogLevel(logging.WARNING)
    return jieba


@functools.cache
def _read_words(path: str) -> tuple[frozenset[str], dict[str, int]]:
    """Read the words of two or more characters in a file, and the length of the longest one by first character.

    The dictionaries of jieba, which have other columns after the word, can be read too.
    """
    with files.open_binary(os.path.expanduser(path)) as (stream, _):
        try:
            lines = stream.read().decode('utf-8-sig').splitlines()
        except UnicodeDecodeError as e:
            raise not_utf8_error(path) from e
    words = frozenset(line.split()[0] for line in lines if line.strip())
    words = frozenset(word for word in words if len(word) > 1)
    return words, {word[0]: len(word) for word in sorted(words, key=len)}
