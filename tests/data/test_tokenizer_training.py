"""Trained vocabularies have at most the size that was asked for, and keep the most frequent characters."""

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer_training
from bert_jax.data.tokenizer import SPECIAL, TokenizerConfig

ENGLISH = ['The river carries the letters of the sailor to the houses of the town.'] * 300


def chinese(n, seed=0):
    """Texts with n characters, some of which are far more frequent than others."""
    weights = 1 / np.arange(1, n + 1)
    drawn = np.random.default_rng(seed).choice(n, 20_000, p=weights / weights.sum())
    text = ''.join(chr(0x4E00 + i) for i in (*range(n), *drawn))
    return [text[i : i + 50] for i in range(0, len(text), 50)]


def test_chinese_leaves_room_for_english_words(caplog):
    with caplog.at_level('INFO'):
        texts = chinese(4000) + ENGLISH
        tokenizer = tokenizer_training.train(texts, TokenizerConfig(vocab_size=2000))
    assert len(tokenizer) == 2000, 'characters fill the rest of the vocabulary'
    assert len(tokenizer.encode(['the river carries letters'])[0]) == 4
    ids = np.concatenate(tokenizer.encode(texts))
    unknown = np.mean(ids == tokenizer.unk)
    assert 0 < unknown < 0.2
    assert (
        f'{unknown:.2%} of the tokens of the text are [UNK], for fewer raise tokenizer.max_char'
        in caplog.text
    )
    (frequent,) = tokenizer.encode([chr(0x4E00) + chr(0x4E01)])
    assert len(frequent) == 2
    assert tokenizer.unk not in frequent
    assert tokenizer.encode([chr(0x4E00 + 3999)])[0].tolist() == [tokenizer.unk]


def test_rare_characters_of_a_cased_corpus_do_not_displace_words():
    rare = [f'The letter {chr(0x1000 + i)}{chr(0x1200 + i % 300)} is rare.' for i in range(400)]
    rare += [f'Le{chr(0xAC00 + i)}t' for i in range(1100)]
    config = TokenizerConfig(vocab_size=1200, lowercase=False)
    tokenizer = tokenizer_training.train(ENGLISH + rare, config)
    assert len(tokenizer) == 1200
    assert len(tokenizer.encode(['The letter is rare'])[0]) == 4


@pytest.mark.parametrize('max_characters', [10, 40, 300])
def test_max_characters_bounds_the_characters(max_characters):
    config = TokenizerConfig(vocab_size=400, max_characters=max_characters)
    tokenizer = tokenizer_training.train(chinese(500) + ENGLISH, config)
    entries = [tokenizer.token(i) for i in tokenizer.ordinary_ids]
    found = sum(len(entry.removeprefix('##')) == 1 for entry in entries)
    assert max_characters - 2 < found <= max_characters
    assert len(entries) <= 395


def test_description_counts_the_entries():
    texts = ['b aaab aaab aaab aaab ab']
    tokenizer = tokenizer_training.train(texts, TokenizerConfig(vocab_size=20))
    entries = [tokenizer.token(i) for i in tokenizer.ordinary_ids]
    words = sum(not e.startswith('##') for e in entries if len(e) > 1)
    pieces = sum(e.startswith('##') for e in entries if len(e) > 3)
    assert words > 0
    assert tokenizer_training.describe(tokenizer, texts) == (
        f'{len(SPECIAL) + len(entries)} entries: 5 special tokens, {words} words, {pieces} pieces, 4 characters; '
        '0.00% of the tokens of the text are [UNK]'
    )
    assert '0.00% of' in tokenizer_training.describe(tokenizer, [])
    bpe = tokenizer_training.train(['a b b b'], TokenizerConfig(kind='bpe', vocab_size=262))
    assert tokenizer_training.describe(bpe, texts) == (
        '262 entries: 5 special tokens, 1 beginnings of words, 0 other pieces, 256 bytes'
    )


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'kind': 'bpe', 'vocab_size': 260}, 'tokenizer.vocab_size=260'),
        ({'vocab_size': 5}, 'tokenizer.vocab_size=5'),
        ({'vocab_size': 100, 'max_characters': 96}, 'tokenizer.max_characters=96'),
    ],
)
def test_sizes_that_are_too_small_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        TokenizerConfig(**settings)
