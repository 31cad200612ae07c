"""Tokenizers: training, loading, encoding and decoding."""

import json
import os
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.data.tokenizer import SPECIAL, TokenizerConfig

TEXT = [
    'The kite rises while the wind blows, and the children run after it.',
    'Running children and rising kites: kites, winds, runners!',
    'Où est le café? Das Mädchen läuft.',
] * 5
KINDS = ('wordpiece', 'bpe')


def trained(kind, **settings):
    return tokenizer_training.train(iter(TEXT), TokenizerConfig(kind=kind, **{'vocab_size': 320, **settings}))


BPE = trained('bpe')


@pytest.mark.parametrize('kind', KINDS)
def test_training_twice_gives_the_same_tokenizer(kind):
    first, second = trained(kind), trained(kind)
    assert first.to_json() == second.to_json()
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != trained(kind, vocab_size=310 if kind == 'bpe' else 60).fingerprint


@pytest.mark.parametrize('kind', KINDS)
def test_special_tokens_come_first(kind):
    tokenizer = trained(kind)
    ids = [tokenizer.pad, tokenizer.unk, tokenizer.cls, tokenizer.sep, tokenizer.mask]
    assert ids == [0, 1, 2, 3, 4]
    assert [tokenizer.token(i) for i in ids] == list(SPECIAL)
    assert tokenizer.ordinary_ids.tolist() == list(range(5, len(tokenizer)))


@pytest.mark.parametrize(('kind', 'size'), [('wordpiece', 60), ('bpe', 300)])
def test_vocabulary_has_the_configured_size(kind, size):
    assert len(trained(kind, vocab_size=size)) == size


def test_training_learns_whole_words():
    wordpiece = trained('wordpiece')
    assert wordpiece.decode(wordpiece.encode(['Kite'])[0]) == 'kite'
    assert len(wordpiece.encode(['children'])[0]) == 1
    assert len(trained('bpe').encode([' children'])[0]) == 1


def test_lowercase_strips_accents_and_cased_keeps_them():
    lower, cased = trained('wordpiece'), trained('wordpiece', lowercase=False)
    assert lower.encode(['Café Mädchen'])[0].tolist() == lower.encode(['cafe madchen'])[0].tolist()
    assert cased.encode(['The'])[0].tolist() != cased.encode(['the'])[0].tolist()
    assert cased.decode(cased.encode(['Mädchen'])[0]) == 'Mädchen'


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_bpe_restores_any_text(texts):
    encoded = BPE.encode(texts)
    assert [BPE.decode(ids) for ids in encoded] == texts
    assert all(ids.dtype == np.int32 for ids in encoded)
    assert all(np.isin(ids, BPE.ordinary_ids).all() for ids in encoded)


@pytest.mark.parametrize('text', ['[MASK]', 'a [CLS] b', '[SEP][PAD]', '[UNK]'])
def test_bpe_restores_special_tokens_written_as_text(text):
    assert BPE.decode(BPE.encode([text])[0]) == text


@pytest.mark.parametrize('kind', KINDS)
def test_mask_in_a_text_is_special_only_with_parse_special(kind):
    tokenizer = trained(kind)
    assert tokenizer.mask not in tokenizer.encode(['the [MASK] rises'])[0]
    parsed = tokenizer.encode(['the [MASK] rises'], parse_special=True)[0]
    assert np.count_nonzero(parsed == tokenizer.mask) == 1
    assert tokenizer.mask not in tokenizer.encode(['the [MASK] rises'])[0], (
        'parse_special changed the tokenizer'
    )


def test_mask_of_bpe_includes_the_space_before_it(tmp_path):
    published = json.loads(BPE.to_json())['model']
    (tmp_path / 'vocab.json').write_text(json.dumps(published['vocab']))
    (tmp_path / 'merges.txt').write_text(''.join(' '.join(m) + '\n' for m in published['merges']))
    for tokenizer in (BPE, tokenizer_lib.from_json(BPE.to_json()), tokenizer_lib.load(tmp_path)):
        before, word, after = (tokenizer.encode([text])[0] for text in ('the', ' kite', ' rises'))
        (parsed,) = tokenizer.encode(['the [MASK] rises'], parse_special=True)
        assert len(word) == 1
        assert parsed.tolist() == [*before, tokenizer.mask, *after]


def test_words_of_bpe_are_encoded_as_in_running_text():
    words = ['Running', 'children', 'and', 'kites', ' wind']
    encoded = BPE.encode_words(words)
    assert np.concatenate(encoded).tolist() == BPE.encode([' Running children and kites wind'])[0].tolist()
    assert [BPE.decode(ids) for ids in encoded] == [' Running', ' children', ' and', ' kites', ' wind']
    wordpiece = trained('wordpiece')
    assert [*map(list, wordpiece.encode_words(words))] == [*map(list, wordpiece.encode(words))]


def test_encoding_adds_and_truncates_nothing():
    tokenizer = trained('wordpiece')
    ids = tokenizer.encode(['kite ' * 2000])[0]
    assert len(ids) == 2000
    assert set(ids.tolist()) == {tokenizer.encode(['kite'])[0][0]}
    assert tokenizer.encode([]) == []
    assert tokenizer.encode([''])[0].shape == (0,)


def test_decoding_omits_special_tokens():
    tokenizer = trained('wordpiece')
    ids = [tokenizer.cls, *tokenizer.encode(['the kite'])[0], tokenizer.sep, tokenizer.pad]
    assert tokenizer.decode(ids) == 'the kite'


def test_wordpiece_pieces_continue_a_word():
    tokenizer = tokenizer_lib.from_vocab([*SPECIAL, 'ki', '##te', 's', '##s', ',', '[unused1]'])
    flags = {tokenizer.token(i): bool(f) for i, f in enumerate(tokenizer.continues_word)}
    assert flags == {
        **dict.fromkeys(SPECIAL, False),
        'ki': False,
        '##te': True,
        's': False,
        '##s': True,
        ',': False,
        '[unused1]': False,
    }


def test_bpe_words_begin_at_spaces_and_line_breaks():
    def word_starts(text):
        ids = BPE.encode([text])[0]
        return [BPE.token(i) for i in ids[~BPE.continues_word[ids]]]

    assert [t.lstrip('Ġ')[:1] for t in word_starts(' the kite, rising')] == ['t', 'k', 'r']
    assert word_starts('\n') == ['Ċ']
    assert word_starts(',!') == []
    assert not BPE.continues_word[:5].any()
    assert BPE.continues_word.shape == (len(BPE),)


def test_vocab_file_ids_are_line_numbers(tmp_path):
    entries = ['[PAD]', '[unused0]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'kite', '##s', 'the']
    (tmp_path / 'vocab.txt').write_text('\n'.join(entries) + '\n', encoding='utf-8')
    for path in (tmp_path / 'vocab.txt', str(tmp_path / 'vocab.txt'), tmp_path):
        tokenizer = tokenizer_lib.load(path)
        assert len(tokenizer) == len(entries)
        assert [tokenizer.token(i) for i in range(len(entries))] == entries
        assert tokenizer.encode(['The kites'])[0].tolist() == [8, 6, 7]
        assert tokenizer.mask == 5


@pytest.mark.parametrize('ends', ['\n', '\r\n'])
def test_vocab_file_line_ends_are_not_part_of_entries(tmp_path, ends):
    file = tmp_path / 'vocab.txt'
    file.write_bytes(ends.join([*SPECIAL, 'kite', '']).encode())
    assert tokenizer_lib.load(file).encode(['kite'])[0].tolist() == [5]


def test_blank_lines_at_the_end_and_a_byte_order_mark_are_not_entries(tmp_path):
    file = tmp_path / 'vocab.txt'
    file.write_text('\n'.join([*SPECIAL, '', 'kite', 'boat']) + '\n\n\n', encoding='utf-8-sig')
    tokenizer = tokenizer_lib.load(file)
    assert len(tokenizer) == 8
    assert (tokenizer.pad, tokenizer.encode(['kite boat'])[0].tolist()) == (0, [6, 7])


def test_settings_with_a_byte_order_mark(tmp_path):
    (tmp_path / 'vocab.txt').write_text('\n'.join([*SPECIAL, 'Kite', 'kite']))
    settings = {'do_lower_case': False, 'tokenizer_class': 'BertTokenizer'}
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(settings), encoding='utf-8-sig')
    assert tokenizer_lib.load(tmp_path).encode(['Kite'])[0].tolist() == [5]


def test_only_line_feeds_separate_vocab_entries(tmp_path):
    file = tmp_path / 'vocab.txt'
    file.write_bytes('\n'.join([*SPECIAL, 'a\u2028', '\x85', 'kite', '']).encode())
    assert tokenizer_lib.load(file).encode(['kite'])[0].tolist() == [7]


def test_repeated_entry_does_not_shift_other_ids():
    tokenizer = tokenizer_lib.from_vocab([*SPECIAL, 'kite', 'kite', '##s'])
    assert tokenizer.encode(['kites'])[0][-1] == 7
    assert tokenizer.continues_word[7]


@pytest.mark.parametrize(('entries', 'is_cased'), [(['kite', 'Kite'], True), (['kite', '##s', 'é'], False)])
def test_uppercase_entries_make_a_vocabulary_cased(entries, is_cased):
    tokenizer = tokenizer_lib.from_vocab([*SPECIAL, '[unused0]', *entries])
    assert (tokenizer.encode(['KITE'])[0].tolist() == [tokenizer.unk]) == is_cased


@pytest.mark.parametrize('kind', KINDS)
def test_saved_tokenizer_is_unchanged(tmp_path, kind):
    tokenizer = trained(kind)
    tokenizer.save(tmp_path / tokenizer_lib.FILE)
    for path in (tmp_path, tmp_path / tokenizer_lib.FILE):
        loaded = tokenizer_lib.load(path)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert np.array_equal(loaded.encode(TEXT)[0], tokenizer.encode(TEXT)[0])
    assert len(tokenizer.fingerprint) == 16
    assert tokenizer_lib.from_json(tokenizer.to_json()).fingerprint == tokenizer.fingerprint


def test_encoding_does_not_change_the_tokenizer():
    tokenizer = trained('wordpiece')
    before = tokenizer.to_json()
    tokenizer.encode(['the [MASK]'], parse_special=True)
    assert tokenizer.to_json() == before


def test_loaded_tokenizer_does_not_truncate_or_pad():
    backend = tokenizer_lib.from_json(trained('wordpiece').to_json()).backend
    backend.enable_truncation(3)
    backend.enable_padding(length=8)
    tokenizer = tokenizer_lib.from_json(backend.to_str())
    assert [len(ids) for ids in tokenizer.encode(['the', 'the kite ' * 4])] == [1, 8]


def test_tokenizer_json_is_preferred_to_vocab_txt(tmp_path):
    (tmp_path / 'vocab.txt').write_text('\n'.join([*SPECIAL, 'kite']))
    trained('bpe').save(tmp_path / tokenizer_lib.FILE)
    assert tokenizer_lib.load(tmp_path).fingerprint == trained('bpe').fingerprint


def test_missing_path_is_named(tmp_path):
    with pytest.raises(UserError, match=r'There is no tokenizer at .*nowhere.*Set tokenizer\.path'):
        tokenizer_lib.load(tmp_path / 'nowhere.json')


def test_folder_without_a_tokenizer_is_named(tmp_path):
    (tmp_path / 'other.json').write_text('{}')
    with pytest.raises(
        UserError,
        match=r'contains no tokenizer\.json, vocab\.txt, merges\.txt or SentencePiece model\. Set tokenizer\.path to another folder or file',
    ):
        tokenizer_lib.load(tmp_path)


@pytest.mark.parametrize('missing', SPECIAL)
def test_vocabulary_needs_every_special_token(tmp_path, missing):
    entries = [t for t in SPECIAL if t != missing] + ['kite']
    (tmp_path / 'vocab.txt').write_text('\n'.join(entries))
    with pytest.raises(UserError) as error:
        tokenizer_lib.load(tmp_path)
    assert str(error.value).startswith(f'The vocabulary has no {missing}. ')


@pytest.mark.parametrize('text', ['{', '{}', 'kite', json.dumps({'model': {'type': 'Kite'}})])
def test_invalid_tokenizer_json_is_named(tmp_path, text):
    (tmp_path / 'tokenizer.json').write_text(text)
    with pytest.raises(UserError, match=r"tokenizer\.json' is not a valid tokenizer\.json \(."):
        tokenizer_lib.load(tmp_path)


@pytest.mark.parametrize('name', ['vocab.txt', 'tokenizer.json'])
def test_binary_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b'\xff\xfe\x00kite')
    with pytest.raises(UserError, match=name):
        tokenizer_lib.load(tmp_path)


GPT2 = {'<|endoftext|>': 0, 't': 1, 'h': 2, 'e': 3, 'Ġ': 4, 'th': 5, 'Ġth': 6, 'the': 7, 'Ġthe': 8}
MERGES = '#version: 0.2\nt h\nĠ th\nth e\nĠth e\n'


@pytest.mark.parametrize(
    ('vocab', 'merges'), [('vocab.json', 'merges.txt'), ('gpt2_encoder.json', 'gpt2_vocab.bpe')]
)
def test_merges_are_loaded_with_the_vocabulary_in_the_same_folder(tmp_path, vocab, merges):
    (tmp_path / vocab).write_text(json.dumps(GPT2))
    (tmp_path / merges).write_text(MERGES, encoding='utf-8')
    tokenizer = tokenizer_lib.load(tmp_path / merges)
    ((ids, offsets),) = tokenizer.encode_with_offsets(['the the<|endoftext|>'])
    assert ids[:2].tolist() == [7, 8]
    assert offsets[:2].tolist() == [[0, 3], [3, 7]]
    assert 0 not in ids, 'the special token in the text was parsed'
    assert tokenizer.mask is None
    assert (tokenizer.cls, tokenizer.sep, tokenizer.pad) == (0, 0, 0)
    prefixed = {'add_prefix_space': True}
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(prefixed))
    assert tokenizer_lib.load(tmp_path / merges).encode(['the'])[0].tolist() == [8]


def test_merges_without_a_matching_vocabulary_are_named(tmp_path):
    (tmp_path / 'merges.txt').write_text(MERGES, encoding='utf-8')
    with pytest.raises(UserError, match=r'BPE merges, but their vocabulary .*vocab\.json. is missing'):
        tokenizer_lib.load(tmp_path)
    for entries, text in ((GPT2, 't h e\n'), ({'<|endoftext|>': 0, 't': 1}, MERGES)):
        (tmp_path / 'vocab.json').write_text(json.dumps(entries))
        (tmp_path / 'merges.txt').write_text(text, encoding='utf-8')
        with pytest.raises(UserError, match='merges'):
            tokenizer_lib.load(tmp_path)


GOLDEN = json.loads((pathlib.Path(__file__).parent / 'golden_ids.json').read_text())


@pytest.mark.parametrize('name', GOLDEN)
def test_ids_and_offsets_match_transformers(name):
    path = pathlib.Path(os.environ.get('TFDS_DATA_DIR', '')).parent / 'vocab' / name
    if not path.is_file():
        pytest.skip(f'{name} is not in the folder vocab next to TFDS_DATA_DIR')
    tokenizer = tokenizer_lib.load(path)
    for case in GOLDEN[name]:
        ((ids, offsets),) = tokenizer.encode_with_offsets([case['text']])
        assert ids.tolist() == case['ids'], case['text']
        assert offsets.tolist() == case['offsets'], case['text']
        assert tokenizer.encode([case['text']])[0].tolist() == case['ids']


def test_an_id_beyond_the_vocabulary_is_an_error():
    tokenizer = tokenizer_lib.from_words('a dog')
    for index in (-1, len(tokenizer)):
        with pytest.raises(UserError, match=f'The token id {index} does not exist. Pass an id from 0 to 6'):
            tokenizer.token(index)


def test_a_tokenizer_is_shown_with_its_kind_size_and_case():
    tokenizer = tokenizer_lib.from_words('a dog')
    assert repr(tokenizer) == "Tokenizer(kind='wordpiece', size=7, lowercase=False)"
