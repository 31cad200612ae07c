"""The tokenizer of prepared text is trained once, saved with the rows and rejected if the settings differ."""

import dataclasses
import logging

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import MANIFEST
from bert_jax.data.tokenizer import TokenizerConfig

TRAINED = TokenizerConfig(vocab_size=120)


@pytest.fixture
def text(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 2400, 5000)
    file = tmp_path / 'numbers.txt'
    file.write_text('\n\n'.join(' '.join(f'w{n}' for n in part) for part in numbers.reshape(-1, 50)))
    return TextConfig(sources=(str(file),), length=32)


def test_tokenizer_is_trained_once_and_saved(text, tmp_path, monkeypatch):
    first = tokenizer_training.load_or_train(text, TRAINED, tmp_path / 'rows')
    assert len(first) == 120
    assert tokenizer_lib.load(tmp_path / 'rows').fingerprint == first.fingerprint
    monkeypatch.setattr(tokenizer_training, 'train', lambda *_: pytest.fail('trained again'))
    changed_rows = dataclasses.replace(text, length=64, seed=4, workers=2)
    assert (
        tokenizer_training.load_or_train(changed_rows, TRAINED, tmp_path / 'rows').fingerprint
        == first.fingerprint
    )


@pytest.mark.parametrize(
    'change',
    [dict(vocab_size=100), dict(lowercase=False), dict(kind='bpe', vocab_size=300), dict(train_bytes=999)],
)
def test_tokenizer_of_other_settings_is_rejected(text, tmp_path, change):
    tokenizer_training.load_or_train(text, TRAINED, tmp_path)
    write_rows(tmp_path)
    with pytest.raises(
        UserError,
        match=rf'trained with a different tokenizer\.{next(iter(change))} \(.*Delete it or choose another data\.rows_dir',
    ):
        tokenizer_training.load_or_train(text, dataclasses.replace(TRAINED, **change), tmp_path)


def write_rows(folder):
    """Mark a folder as one with prepared rows."""
    (folder / 'length32').mkdir()
    (folder / 'length32' / MANIFEST).write_text('{}')


def test_tokenizer_without_rows_is_replaced(text, tmp_path, caplog):
    tokenizer_training.load_or_train(text, TRAINED, tmp_path)
    smaller = dataclasses.replace(TRAINED, vocab_size=100)
    with caplog.at_level(logging.INFO):
        assert len(tokenizer_training.load_or_train(text, smaller, tmp_path)) == 100
    assert 'tokenizer.vocab_size (120, now 100). It is trained again.' in caplog.text
    write_rows(tmp_path)
    with pytest.raises(UserError, match='trained with a different'):
        tokenizer_training.load_or_train(text, TRAINED, tmp_path)
    assert len(tokenizer_training.load_or_train(text, TRAINED, tmp_path, replace=True)) == 120


def test_tokenizer_of_other_text_is_rejected(text, tmp_path):
    tokenizer_training.load_or_train(text, TRAINED, tmp_path)
    write_rows(tmp_path)
    with pytest.raises(UserError, match=r'trained with a different data\.text_key \(text, now body\)'):
        tokenizer_training.load_or_train(dataclasses.replace(text, text_key='body'), TRAINED, tmp_path)


def test_damaged_settings_file_is_named(text, tmp_path):
    tokenizer_training.load_or_train(text, TRAINED, tmp_path)
    (tmp_path / 'tokenizer_config.json').write_text('0a1b')
    with pytest.raises(UserError, match=r'tokenizer_config\.json.* is damaged'):
        tokenizer_training.load_or_train(text, TRAINED, tmp_path)


def test_incomplete_tokenizer_is_trained_again(text, tmp_path):
    (tmp_path / tokenizer_lib.FILE).write_text('{"half')
    assert len(tokenizer_training.load_or_train(text, TRAINED, tmp_path)) == 120
    assert len(tokenizer_lib.load(tmp_path)) == 120


def test_tokenizer_path_is_loaded_and_nothing_is_written(text, word_tokenizer, tmp_path):
    word_tokenizer.save(tmp_path / 'mine.json')
    config = TokenizerConfig(path=str(tmp_path / 'mine.json'))
    assert (
        tokenizer_training.load_or_train(text, config, tmp_path / 'rows').fingerprint
        == word_tokenizer.fingerprint
    )
    assert not (tmp_path / 'rows').exists()


def test_no_tokenizer_is_saved_for_empty_text(text, tmp_path):
    (tmp_path / 'a.txt').write_text('\n')
    empty = dataclasses.replace(text, sources=(str(tmp_path / 'a.txt'),))
    with pytest.raises(UserError, match='(?i)no text'):
        tokenizer_training.load_or_train(empty, TRAINED, tmp_path / 'rows')
    assert not (tmp_path / 'rows' / tokenizer_lib.FILE).exists()


def test_every_source_contributes_an_equal_share_of_the_training_text(word_tokenizer, tmp_path, monkeypatch):
    for name in ('a', 'é'):
        (tmp_path / f'{name}.txt').write_text('\n\n'.join([name * 100] * 50), encoding='utf-8')
    config = TextConfig((str(tmp_path / 'a.txt'), str(tmp_path / 'é.txt')))
    found = []
    monkeypatch.setattr(tokenizer_training, 'train', lambda texts, _: found.extend(texts) or word_tokenizer)
    tokenizer_training.load_or_train(config, TokenizerConfig(train_bytes=4000), tmp_path / 'rows')
    assert 20 <= found.count('a' * 100) <= 21
    assert 10 <= found.count('é' * 100) <= 11


def test_interrupted_replacement_leaves_no_tokenizer_of_other_settings(text, tmp_path, monkeypatch):
    first = tokenizer_training.load_or_train(text, TRAINED, tmp_path)
    written = []

    def write_one(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        path.write_text(content)

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer_training, 'write_atomic', write_one)
        with pytest.raises(KeyboardInterrupt):
            tokenizer_training.load_or_train(text, dataclasses.replace(TRAINED, vocab_size=100), tmp_path)
    again = tokenizer_training.load_or_train(text, TRAINED, tmp_path)
    assert again.fingerprint == first.fingerprint
