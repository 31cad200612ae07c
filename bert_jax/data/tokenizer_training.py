"""Train tokenizers: WordPiece as in BERT, and byte-level BPE as in GPT-2."""

import collections
import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_jax.data.tokenizer import (
    SPECIAL,
    Tokenizer,
    TokenizerConfig,
    byte_level_backend,
    mask_after_space,
    wordpiece_backend,
)


def train(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Train a tokenizer on texts, and log what its vocabulary consists of."""
    texts = list(texts)
    tokenizer = _train_bpe(texts, config) if config.kind == 'bpe' else _train_wordpiece(texts, config)
    logging.info('%s', describe(tokenizer, texts))
    return tokenizer


def _train_bpe(texts: Sequence[str], config: TokenizerConfig) -> Tokenizer:
    backend = byte_level_backend(models.BPE())
    trainer: Any = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[*SPECIAL[:-1], mask_after_space(SPECIAL[-1])],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)


def _train_wordpiece(texts: Sequence[str], config: TokenizerConfig) -> Tokenizer:
    backend = wordpiece_backend({t: i for i, t in enumerate(SPECIAL)}, lowercase=config.lowercase)
    characters = _rank_characters(texts, backend)
    room = config.vocab_size - len(SPECIAL)
    limit = config.max_characters or min(room, max(500, room // 2))
    sizes = np.cumsum([len(entries) for entries in characters])
    count = int(np.searchsorted(sizes, limit, side='right'))
    chosen = sorted(characters[:count])
    # The trainer numbers word-internal characters in random order; listing them first makes training reproducible.
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[*SPECIAL, *(inner for _, *inners in chosen for inner in inners)],
        initial_alphabet=[first for first, *_ in chosen],
        limit_alphabet=count,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    vocab = backend.get_vocab()
    if not config.max_characters:  # further characters fill the rest of the vocabulary
        rest = (entry for entries in characters[count:] for entry in entries)
        vocab |= {entry: i for i, entry in zip(range(len(vocab), config.vocab_size), rest, strict=False)}
    return Tokenizer(wordpiece_backend(vocab, lowercase=config.lowercase))


def _rank_characters(texts: Iterable[str], backend: tokenizers.Tokenizer) -> list[list[str]]:
    """Return the entries of each character of the texts, by descending frequency of the characters.

    A character c has the entry c and, if it occurs after another character inside a word, the entry ##c.

    Args:
      texts: training texts.
      backend: normalizes texts and splits them into words.
    """
    pairs: collections.Counter[tuple[str, str]] = collections.Counter()
    for text in texts:
        pairs.update(itertools.pairwise(' ' + backend.normalizer.normalize_str(text)))
    counts: collections.Counter[str] = collections.Counter()
    inner = set()
    for (a, b), count in pairs.items():
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(a + b)]
        if words and words[-1].endswith(b):  # not white space
            counts[b] += count
            # Whether two neighbors belong to one word depends on these two characters only.
            inner |= {b} if words == [a + b] else set()
    return [[c, f'##{c}'] if c in inner else [c] for c in sorted(counts, key=lambda c: (-counts[c], c))]


def describe(tokenizer: Tokenizer, texts: Sequence[str], max_chars: int = 1_000_000) -> str:
    """Describe a trained vocabulary: the kinds of its entries, and the share of [UNK] in a text.

    Args:
      tokenizer: a trained tokenizer.
      texts: training texts.
      max_chars: number of characters to measure the share of [UNK] on, evenly spaced in the texts.
    """
    entries = [tokenizer.token(i) for i in tokenizer.ordinary_ids]
    plain = [entry.removeprefix('##') for entry in entries]
    num_characters = sum(len(entry) == 1 for entry in plain)
    if tokenizer.is_byte_level:
        num_words = sum(entry[0] == 'Ġ' for entry in entries if len(entry) > 1)
        return (
            f'{len(tokenizer):,} entries: {len(SPECIAL)} special tokens, {num_words:,} beginnings of words, '
            f'{len(entries) - num_characters - num_words:,} other pieces, {num_characters:,} bytes'
        )
    num_words = sum(not entry.startswith('##') for entry in entries if len(entry) > 1)
    step = max(1, sum(map(len, texts)) // max_chars)
    ids = np.concatenate([np.zeros(0, int), *tokenizer.encode(texts[::step])])
    unknown = float(np.mean(ids == tokenizer.unk)) if len(ids) else 0.0
    hint = ', for fewer raise tokenizer.max_characters' if unknown > 0.01 else ''
    return (
        f'{len(tokenizer):,} entries: {len(SPECIAL)} special tokens, {num_words:,} words, '
        f'{len(entries) - num_characters - num_words:,} pieces, {num_characters:,} characters; '
        f'{unknown:.2%} of the tokens of the text are [UNK]{hint}'
    )
