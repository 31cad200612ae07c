"""Tokenizers in folders of transformers: ids, offsets and special tokens are those of transformers, or there is an error."""

import json
import re

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from bert_jax.core.errors import UserError
from bert_jax.data import rows
from bert_jax.data import tokenizer as tokenizer_lib
from tests.data import make_golden_tokenizers as made

BERT = ''.join(f'{token}\n' for token in (*made.SPECIAL['bert'], 'the', 'cat'))


@pytest.mark.parametrize('size', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_folders_give_what_transformers_makes_of_them(tmp_path, size):
    golden = json.loads(made.FILE.read_text())
    texts = made.texts()[: made.SIZES[size]]
    different = []
    for name, folder in made.folders(tmp_path):
        tokenizer = tokenizer_lib.load(folder)
        *digests, ids, segments = golden.pop(name)[:4]
        is_equal = made.digest(tokenizer.backend, texts) == digests[size]
        if tokenizer.family != 'gpt2':  # transformers adds no special tokens for GPT-2
            a, b = tokenizer.encode(['the cat', 'hello'])
            row = rows.unpack(rows.pack(a, b, 0, len(ids), tokenizer))
            is_equal &= row.tokens.tolist() == ids
            if tokenizer.family in ('bert', 'albert'):
                is_equal &= row.inputs()['segments'].tolist() == segments
        if not is_equal:
            different.append(name)
    assert different == []
    assert golden == {}, 'all folders were read'


@pytest.mark.parametrize('size', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_words_of_byte_level_bpe_begin_with_a_space(tmp_path, size):
    golden = {name: value[4] for name, value in json.loads(made.FILE.read_text()).items() if len(value) > 4}
    words = made.word_lists()[: made.SIZES[size]]
    checked = 0
    for name, folder in made.folders(tmp_path):
        prefixed = re.sub(r'\{.*\} added none', "{'add_prefix_space': True} added none", name)
        if expected := golden.get(prefixed):  # the same words with any setting of add_prefix_space
            tokenizer = tokenizer_lib.load(folder)
            encoded = [[ids.tolist() for ids in tokenizer.encode_words(text)] for text in words]
            assert made.words_digest(encoded) == expected[size], name
            checked += 1
    assert checked == 3 * len(golden) == 18


@pytest.mark.parametrize('class_name', ['XLMRobertaTokenizerFast of roberta', 'GemmaTokenizer of gemma'])
def test_sentencepiece_words_begin_with_a_space(tmp_path, class_name):
    folder = dict(made.folders(tmp_path))[f'{class_name} added none']
    tokenizer = tokenizer_lib.load(folder)
    words = ['hello', 'the', 'cats', '.']
    ids = [word.tolist() for word in tokenizer.encode_words(words)]
    assert [i for word in ids for i in word] == tokenizer.encode([' ' + ' '.join(words)])[0].tolist()
    assert [[bool(tokenizer.continues_word[i]) for i in word] for word in ids] == [
        [i > 0 for i in range(len(word))] for word in ids
    ]
    assert max(map(len, ids)) > 1, 'some words have several tokens'
    (encoded,) = tokenizer.encode_with_offsets([' the cats'])
    assert [' the cats'[a:b].strip() for a, b in encoded[1]][:2] == ['the', 'cat']


@pytest.mark.parametrize('source', ['vocab.txt', 'tokenizer.json'])
def test_mpnet_keeps_its_special_tokens_beside_those_of_bert(tmp_path, source):
    folder = dict(made.folders(tmp_path))[f'MPNetTokenizer both [] {source}']
    loaded = tokenizer_lib.load(folder)
    for tokenizer in (loaded, tokenizer_lib.from_json(loaded.to_json())):
        assert tokenizer.family == 'mpnet'
        ids = {
            name: tokenizer.token(getattr(tokenizer, name)) for name in ('pad', 'unk', 'cls', 'sep', 'mask')
        }
        assert [*ids.values()] == ['<pad>', '[UNK]', '<s>', '</s>', '<mask>']
        assert tokenizer.separators == (tokenizer.sep,) * 2
        assert tokenizer.backend.token_to_id('[CLS]') is not None


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (
            {'tokenizer_class': 'BertJapaneseTokenizer', 'word_tokenizer_type': 'mecab'},
            'is a BertJapaneseTokenizer',
        ),
        ({'tokenizer_class': 'MyTokenizer'}, 'is a MyTokenizer'),
        ({'auto_map': {'AutoTokenizer': ['my.MyTokenizer', None]}}, 'needs its own code'),
        ({'tokenizer_class': 'BertTokenizer', 'cls_token': '[START]'}, r"set cls_token to '\[START\]'"),
    ],
)
def test_tokenizers_that_cannot_be_represented_are_refused_by_name(tmp_path, config, message):
    (tmp_path / 'vocab.txt').write_text(BERT)
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        tokenizer_lib.load(tmp_path)


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('tokenizer_config.json', '[1]'),
        ('tokenizer_config.json', '{"tokenizer_class": 7}'),
        ('tokenizer_config.json', '{"added_tokens_decoder": {"a": "b"}}'),
        ('tokenizer_config.json', '{"added_tokens_decoder": {"0": {}}}'),
        ('tokenizer_config.json', '[' * 5000),
        ('special_tokens_map.json', '{"mask_token": {"a": 1}}'),
        ('added_tokens.json', '{"a": [0]}'),
        ('config.json', '"bert"'),
    ],
)
def test_settings_of_other_types_are_errors(tmp_path, name, text):
    (tmp_path / 'vocab.txt').write_text(BERT)
    (tmp_path / name).write_text(text)
    with pytest.raises(
        UserError, match=r'(is not (a|valid) JSON|has an invalid value).*Correct or delete it\.$'
    ):
        tokenizer_lib.load(tmp_path)


def test_class_may_be_named_by_the_config_of_the_model(tmp_path):
    (tmp_path / 'vocab.txt').write_text(BERT)
    (tmp_path / 'config.json').write_text(json.dumps({'tokenizer_class': 'BertJapaneseTokenizer'}))
    with pytest.raises(UserError, match='is a BertJapaneseTokenizer'):
        tokenizer_lib.load(tmp_path)


def test_unigram_without_spaces_is_refused_by_name(tmp_path):
    special = [(token, 0.0) for token in made.SPECIAL['roberta']]
    backend = tokenizers.Tokenizer(models.Unigram([*special, ('a', -1.0)], unk_id=3))
    backend.save(str(tmp_path / 'tokenizer.json'))
    with pytest.raises(UserError, match='is a Unigram tokenizer'):
        tokenizer_lib.load(tmp_path)


def test_optional_parts_of_a_tokenizer_json_may_be_missing(tmp_path):
    model = {'type': 'WordPiece', 'vocab': {t: i for i, t in enumerate(BERT.split())}, 'unk_token': '[UNK]'}
    model |= {'continuing_subword_prefix': '##', 'max_input_chars_per_word': 100}
    (tmp_path / 'tokenizer.json').write_text(json.dumps({'model': model}))
    assert tokenizer_lib.load(tmp_path).encode(['the'])[0].tolist() == [BERT.split().index('the')]


def test_class_must_fit_the_model(tmp_path):
    tokenizer_lib.from_vocab(BERT.split()).save(tmp_path / 'tokenizer.json')
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'tokenizer_class': 'GPT2Tokenizer'}))
    with pytest.raises(UserError, match='is a WordPiece tokenizer, but .* names the class GPT2Tokenizer'):
        tokenizer_lib.load(tmp_path)


def test_texts_of_a_pair_may_have_several_tokens(tmp_path):
    entries = [*made.SPECIAL['bert'], 'Ġ', 'a', 'b']
    backend = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(entries)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    backend.save(str(tmp_path / 'tokenizer.json'))
    assert [ids.tolist() for ids in tokenizer_lib.load(tmp_path).encode(['a'])] == [[5, 6]]


def test_pair_layout_that_differs_is_refused(tmp_path):
    backend = tokenizers.Tokenizer(
        models.WordPiece({t: i for i, t in enumerate(BERT.split())}, unk_token='[UNK]')
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(token, BERT.split().index(token)) for token in ('[CLS]', '[SEP]')]
    backend.post_processor = processors.TemplateProcessing(
        '[CLS] $A [SEP]', '[CLS] $A [SEP] [SEP] $B [SEP]', special
    )
    backend.save(str(tmp_path / 'tokenizer.json'))
    with pytest.raises(UserError, match='joins two texts as'):
        tokenizer_lib.load(tmp_path)
    for pair, is_refused in (
        ('[CLS] $A [SEP] $B:1 [SEP]:1', False),
        ('[CLS] $A [SEP] $B [SEP]', False),
        ('[CLS]:1 $A:1 [SEP]:1 $B [SEP]', True),
        ('[CLS]:2 $A [SEP] $B:1 [SEP]:1', True),
    ):
        backend.post_processor = processors.TemplateProcessing('[CLS] $A [SEP]', pair, special)
        backend.save(str(tmp_path / 'tokenizer.json'))
        if is_refused:
            with pytest.raises(UserError, match=r'gives two texts the token type ids \['):
                tokenizer_lib.load(tmp_path)
        else:
            assert tokenizer_lib.load(tmp_path).family == 'bert'
