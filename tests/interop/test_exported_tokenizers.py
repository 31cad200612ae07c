"""Exported tokenizers give transformers the rows on which our models are trained, and are read back equal."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import normalizers, pre_tokenizers

from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.data.rows import pack, unpack
from bert_jax.interop import tokenizer_files

TEXTS = ['the old sailor watches New York', "a teacher's letter"]
CORPUS = [f'{TEXTS[0]}, and {TEXTS[1]}.'] * 9


def make(kind, family='bert'):
    """A trained tokenizer with the special tokens of `family`."""
    config = tokenizer_lib.TokenizerConfig(kind=kind, vocab_size=300, lowercase=False)
    text = tokenizer_training.train(CORPUS, config).to_json()
    for ours, theirs in zip(tokenizer_lib.SPECIAL, tokenizer_lib._FAMILIES[family], strict=False):
        text = text.replace(ours, theirs)
    return tokenizer_lib.from_json(text)


TOKENIZERS = {
    'wordpiece': make('wordpiece'),
    'bpe': make('bpe'),
    'roberta': make('bpe', 'roberta'),
    'generic': tokenizer_lib.from_json(make('wordpiece').to_json()),
}
TOKENIZERS['generic'].backend.normalizer = normalizers.Lowercase()
TOKENIZERS['generic'].backend.pre_tokenizer = pre_tokenizers.Whitespace()


def export(folder, name, **options):
    """The exported `tokenizer.json` as transformers uses it, and the settings beside it."""
    tokenizer_files.write(TOKENIZERS[name], folder, 64, **{'segments': True, **options})
    settings = json.loads((folder / 'tokenizer_config.json').read_text())
    # All other classes replace parts of the tokenizer.json.
    assert settings['tokenizer_class'] == 'PreTrainedTokenizerFast'
    return tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json')), settings


@pytest.mark.parametrize('segments', [True, False])
@pytest.mark.parametrize('name', TOKENIZERS)
def test_texts_and_pairs_become_our_rows(tmp_path, name, segments):
    exported, settings = export(tmp_path, name, segments=segments)
    tokenizer = TOKENIZERS[name]
    a, b = tokenizer.encode(TEXTS)
    for texts, second in ((TEXTS[:1], None), (TEXTS, b)):
        row = unpack(pack(a, second, 0, 64, tokenizer))
        found = exported.encode(*texts)
        assert found.ids == row.tokens[: row.length].tolist()
        expected = row.inputs()['segments'][: row.length] * segments
        assert found.type_ids == expected.tolist()
    assert ('token_type_ids' in settings['model_input_names']) == segments
    again = tokenizer_lib.load(tmp_path)
    assert again.separators == tokenizer.separators
    assert [ids.tolist() for ids in again.encode(TEXTS)] == [a.tolist(), b.tolist()]


@pytest.mark.parametrize('name', TOKENIZERS)
def test_a_causal_model_continues_the_bare_text(tmp_path, name):
    exported, settings = export(tmp_path, name, special_tokens=False)
    tokenizer = TOKENIZERS[name]
    assert exported.encode(TEXTS[0]).ids == tokenizer.encode(TEXTS)[0].tolist()
    sep = tokenizer.special_tokens[3]
    assert (settings['bos_token'], settings['eos_token']) == (sep, sep)
    assert 'cls_token' not in settings


def test_words_of_a_byte_level_tagger_begin_with_a_space(tmp_path):
    exported, _ = export(tmp_path, 'bpe', prefix_space=True)
    words = TEXTS[0].split()
    ids = np.concatenate(TOKENIZERS['bpe'].encode_words(words)).tolist()
    for found in (exported.encode(TEXTS[0]), exported.encode(words, is_pretokenized=True)):
        assert found.ids[1:-1] == ids
        assert found.offsets[1][0] == 0


@pytest.mark.parametrize('name', ['bpe', 'roberta'])
def test_offsets_exclude_spaces(tmp_path, name):
    exported, _ = export(tmp_path, name)
    found = exported.encode(*TEXTS)
    pieces = [
        TEXTS[part][start:end]
        for part, (start, end) in zip(found.sequence_ids, found.offsets, strict=True)
        if part is not None
    ]
    assert ''.join(pieces) == ''.join(TEXTS).replace(' ', '')


def test_each_line_of_the_vocabulary_has_the_number_of_its_id(tmp_path):
    lines = [*tokenizer_lib.SPECIAL, 'twice', 'a', '', 'twice', '', 'b', '\u2028', 'c']
    (tmp_path / 'vocab.txt').write_text('\n'.join(lines), encoding='utf-8')
    tokenizer = tokenizer_lib.load(tmp_path)
    tokenizer_files.write(tokenizer, tmp_path, 64, segments=True)
    written = (tmp_path / 'vocab.txt').read_text(encoding='utf-8').split('\n')
    assert written == [*lines[:5], '', *lines[6:], '']  # the first of two equal entries has no id
    for again in (tokenizer_lib.load(tmp_path), tokenizer_lib.load(tmp_path / 'vocab.txt')):
        assert again.encode(['a twice b c'])[0].tolist() == [6, 8, 10, 12]
        assert len(again) == len(tokenizer) == len(lines)


def test_ids_with_gaps_keep_their_lines(tmp_path):
    vocab = {**{token: i for i, token in enumerate(tokenizer_lib.SPECIAL)}, 'a': 7, 'two\nlines': 9, 'b': 12}
    tokenizer_files.write(tokenizer_lib.from_vocab(vocab), tmp_path, 64, segments=True)
    lines = (tmp_path / 'vocab.txt').read_text().split('\n')
    del vocab['two\nlines']  # cannot be written on one line
    assert {line: i for i, line in enumerate(lines) if line} == vocab


def test_roberta_offsets_in_transformers_exclude_spaces(tmp_path):
    config = tokenizer_lib.TokenizerConfig(kind='bpe', vocab_size=300)
    text = tokenizer_training.train(['new york is a city'] * 9, config).to_json()
    for ours, theirs in zip(tokenizer_lib.SPECIAL, ('<pad>', '<unk>', '<s>', '</s>', '<mask>'), strict=True):
        text = text.replace(ours, theirs)
    tokenizer = tokenizer_lib.from_json(text)
    tokenizer_files.write(tokenizer, tmp_path, 64, segments=False)
    loaded = tokenizers.Tokenizer.from_file(str(tmp_path / tokenizer_lib.FILE))
    found = loaded.encode('a city', 'is')
    assert [found.tokens[0], found.tokens[-1], found.tokens.count('</s>')] == ['<s>', '</s>', 3]
    pieces = [
        'a city'[a:b] for (a, b), part in zip(found.offsets, found.sequence_ids, strict=True) if part == 0
    ]
    assert ''.join(pieces) == 'acity'
