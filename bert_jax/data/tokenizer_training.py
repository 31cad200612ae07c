"""Train tokenizers: WordPiece as in BERT, and byte-level BPE as in GPT-2."""

import collections
import dataclasses
import itertools
import json
import logging
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_jax.core.errors import UserError
from bert_jax.core.paths import lock_folder, read_json, write_atomic
from bert_jax.data import sources
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.prepare import TextConfig, check_text, describe_change, no_text_error
from bert_jax.data.rows import MANIFEST
from bert_jax.data.tokenizer import (
    FILE,
    SPECIAL,
    Tokenizer,
    TokenizerConfig,
    byte_level_backend,
    from_vocab,
    mask_after_space,
    wordpiece_backend,
)


def placeholder(config: TokenizerConfig) -> Tokenizer:
    """Make a tokenizer of made-up words and of the configured size, to check settings before the real one is trained."""
    return from_vocab([*SPECIAL, *(f'w{i}' for i in range(config.vocab_size - len(SPECIAL)))])


def load_or_train(
    text: TextConfig, config: TokenizerConfig, folder: pathlib.Path, replace: bool = False
) -> Tokenizer:
    """Load the tokenizer from `config.path` or from `folder`, or train it and save it in `folder`.

    A tokenizer in `folder` that was trained with other settings is replaced if no rows were prepared with it.

    Args:
      text: text to train on.
      config: settings of the tokenizer.
      folder: folder of the tokenizer and of the rows.
      replace: whether to replace a tokenizer of other settings in any case.

    Raises:
      UserError: if the tokenizer in `folder` has other settings and must not be replaced, or there is no text.
    """
    if config.path:
        return tokenizer_lib.load(config.path)
    settings = {f'tokenizer.{k}': v for k, v in dataclasses.asdict(config).items()}
    settings |= {f'data.{k}': getattr(text, k) for k in ('sources', 'split', 'text_key')}
    settings = json.loads(json.dumps(settings))
    with lock_folder(folder):
        file, settings_file = folder / FILE, folder / 'tokenizer_config.json'
        if file.is_file() and settings_file.is_file():
            try:
                earlier = read_json(settings_file)
            except ValueError as e:
                raise UserError(
                    f'{str(settings_file)!r} is damaged. Delete it or choose another data.rows_dir.'
                ) from e
            if not (change := describe_change(settings, earlier)):
                return tokenizer_lib.load(file)
            problem = f'{str(file)!r} was trained with a different {change}.'
            if not replace and any(folder.glob(f'*/{MANIFEST}')):
                raise UserError(f'{problem} Delete it or choose another data.rows_dir.')
            logging.info('%s It is trained again.', problem)
        check_text(text)
        tokenizer = _train_on(text, config)
        settings_file.unlink(missing_ok=True)  # a death must not leave it with another tokenizer
        write_atomic(file, tokenizer.to_json())
        tokenizer.source = str(file)
        write_atomic(settings_file, json.dumps(settings, indent=2) + '\n')
        return tokenizer


def _train_on(text: TextConfig, config: TokenizerConfig) -> Tokenizer:
    if config.kind == 'unigram':
        raise UserError(
            "tokenizer.kind='unigram' cannot be trained. Choose wordpiece or bpe, or load a tokenizer with tokenizer.path."
        )
    logging.info('training a %s tokenizer with %d entries', config.kind, config.vocab_size)
    paragraphs = _read_paragraphs(text, config.train_bytes)
    first = next(paragraphs, None)
    if first is None:
        raise no_text_error(text.sources)
    tokenizer = train(itertools.chain([first], paragraphs), config)
    if len(tokenizer) < config.vocab_size:
        logging.info('the text is too short: the vocabulary has only %d entries', len(tokenizer))
    return tokenizer


def _read_paragraphs(text: TextConfig, max_bytes: int) -> Iterator[str]:
    """Yield about `max_bytes` bytes of paragraphs, an equal share from each corpus and each of its sources."""
    for corpus in text.corpora():
        for source in corpus:
            remaining = max_bytes // len(text.corpora()) // len(corpus)
            for document in sources.read_documents(source, text.split, text.text_key):
                yield from document.paragraphs
                remaining -= sum(len(p.encode()) for p in document.paragraphs)
                if remaining < 0:
                    break


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
