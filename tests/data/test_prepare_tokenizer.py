"""The tokenizer of prepared text: trained once, kept beside the rows, refused where it does not fit."""

import dataclasses

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import prepare as prepare_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.prepare import TextConfig
from bert_jax.data.tokenizer import TokenizerConfig

TRAINED = TokenizerConfig(vocab_size=120)


@pytest.fixture
def text(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 2400, 5000)
    file = tmp_path / 'numbers.txt'
    file.write_text('\n\n'.join(' '.join(f'w{n}' for n in part) for part in numbers.reshape(-1, 50)))
    return TextConfig(sources=(str(file),), length=32)


def test_a_tokenizer_is_trained_once_and_kept(text, tmp_path, monkeypatch):
    first = prepare_lib.get_tokenizer(text, TRAINED, tmp_path / 'rows')
    assert len(first) == 120
    assert tokenizer_lib.load(tmp_path / 'rows').fingerprint == first.fingerprint
    monkeypatch.setattr(tokenizer_lib, 'train', lambda *_: pytest.fail('trained again'))
    other_rows = dataclasses.replace(text, length=64, seed=4, workers=2)
    assert prepare_lib.get_tokenizer(other_rows, TRAINED, tmp_path / 'rows').fingerprint == first.fingerprint


@pytest.mark.parametrize(
    'change', [dict(vocab_size=100), dict(lowercase=False), dict(kind='bpe'), dict(train_bytes=999)]
)
def test_a_tokenizer_of_other_settings_is_refused(text, tmp_path, change):
    prepare_lib.get_tokenizer(text, TRAINED, tmp_path)
    with pytest.raises(
        UserError,
        match=rf'trained with another tokenizer\.{next(iter(change))} \(.*choose another data\.rows, or delete it',
    ):
        prepare_lib.get_tokenizer(text, dataclasses.replace(TRAINED, **change), tmp_path)


def test_a_tokenizer_of_other_text_is_refused(text, tmp_path):
    prepare_lib.get_tokenizer(text, TRAINED, tmp_path)
    with pytest.raises(UserError, match=r'trained with another data\.text_key \(text, now body\)'):
        prepare_lib.get_tokenizer(dataclasses.replace(text, text_key='body'), TRAINED, tmp_path)


def test_a_damaged_note_of_a_tokenizer_is_named(text, tmp_path):
    prepare_lib.get_tokenizer(text, TRAINED, tmp_path)
    (tmp_path / 'tokenizer_config.json').write_text('0a1b')
    with pytest.raises(UserError, match=r'tokenizer_config\.json.* is damaged'):
        prepare_lib.get_tokenizer(text, TRAINED, tmp_path)


def test_a_tokenizer_that_was_left_half_written_is_trained_again(text, tmp_path):
    (tmp_path / tokenizer_lib.FILE).write_text('{"half')
    assert len(prepare_lib.get_tokenizer(text, TRAINED, tmp_path)) == 120
    assert len(tokenizer_lib.load(tmp_path)) == 120


def test_a_given_tokenizer_is_loaded_and_nothing_is_written(text, words, tmp_path):
    words.save(tmp_path / 'given.json')
    config = TokenizerConfig(path=str(tmp_path / 'given.json'))
    assert prepare_lib.get_tokenizer(text, config, tmp_path / 'rows').fingerprint == words.fingerprint
    assert not (tmp_path / 'rows').exists()


def test_no_tokenizer_is_kept_of_empty_text(text, tmp_path):
    (tmp_path / 'a.txt').write_text('\n')
    empty = dataclasses.replace(text, sources=(str(tmp_path / 'a.txt'),))
    with pytest.raises(UserError, match='(?i)no text'):
        prepare_lib.get_tokenizer(empty, TRAINED, tmp_path / 'rows')
    assert not (tmp_path / 'rows' / tokenizer_lib.FILE).exists()


def test_each_source_gives_its_share_of_the_training_text(words, tmp_path, monkeypatch):
    for name in ('a', 'é'):
        (tmp_path / f'{name}.txt').write_text('\n\n'.join([name * 100] * 50), encoding='utf-8')
    config = TextConfig((str(tmp_path / 'a.txt'), str(tmp_path / 'é.txt')))
    found = []
    monkeypatch.setattr(tokenizer_lib, 'train', lambda texts, _: found.extend(texts) or words)
    prepare_lib.get_tokenizer(config, TokenizerConfig(train_bytes=4000), tmp_path / 'rows')
    assert 20 <= found.count('a' * 100) <= 21
    assert 10 <= found.count('é' * 100) <= 11
