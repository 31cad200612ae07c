"""SentencePiece models: their contents and ids, and damaged or unsupported files; see also test_published_tokenizers.py."""

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import sentencepiece
from bert_jax.data import tokenizer as tokenizer_lib
from tests.data import make_golden_tokenizers as made


def write(folder, model_type='xlm-roberta', change=bytes):
    file = folder / made.MODELS[model_type][1]
    file.write_bytes(change(made.sentencepiece_model(model_type, made.CHARACTERS)))
    return file


def test_contents(tmp_path):
    model = sentencepiece.read(write(tmp_path, 't5'))
    assert model.pieces[:4] == [('<pad>', 0.0, 3), ('</s>', 0.0, 3), ('<unk>', 0.0, 2), ('▁', -3.0, 1)]
    assert model.pieces[-1] == ('addedword', 0.0, 4)
    assert (model.model_type, model.unk_id, model.byte_fallback) == (1, 2, False)
    assert model.characters == made.CHARACTERS


def test_ids_of_xlmr_are_one_higher_than_in_the_file(tmp_path):
    file = write(tmp_path)
    pieces = [piece for piece, _, _ in sentencepiece.read(file).pieces]
    tokenizer = tokenizer_lib.load(tmp_path)
    assert (tokenizer.cls, tokenizer.pad, tokenizer.sep, tokenizer.unk) == (0, 1, 2, 3)
    (ids,) = tokenizer.encode(['the cat'])
    assert ids.tolist() == [pieces.index(piece) + 1 for piece in ('▁the', '▁cat')]
    assert tokenizer.mask == len(pieces) + 1 == len(tokenizer) - 1


def test_sentinels_of_t5_follow_the_pieces_in_reverse(tmp_path):
    count = len(sentencepiece.read(write(tmp_path, 't5')).pieces)
    tokenizer = tokenizer_lib.load(tmp_path)
    assert tokenizer.sentinels == tuple(range(count + 99, count - 1, -1))


def test_a_tokenizer_json_takes_precedence(tmp_path):
    write(tmp_path)
    (tmp_path / 'tokenizer.json').write_text(made._unigram('t5').to_str())
    assert tokenizer_lib.load(tmp_path).family == 't5'


@pytest.mark.parametrize(
    'change',
    [
        lambda data: data[:-7],
        lambda data: b'#version: 1\nthe lines of another file\n',
        lambda data: b'',
        lambda data: data + bytes([0xFF]),
    ],
    ids=['truncated', 'text', 'empty', 'unfinished'],
)
def test_damaged_files_are_refused(tmp_path, change):
    with pytest.raises(UserError, match='Download it again'):
        tokenizer_lib.load(write(tmp_path, change=change))


@pytest.mark.parametrize('trainer', [[(3, 2)], [(35, 1)]], ids=['bpe', 'byte fallback'])
def test_models_of_other_kinds_are_refused(tmp_path, trainer):
    file = write(tmp_path, change=lambda data: data + made._message((2, made._message(*trainer))))
    with pytest.raises(
        UserError, match=r'only Unigram models without byte fallback .* can\. Save the tokenizer'
    ):
        tokenizer_lib.load(file)


def test_other_classes_are_refused(tmp_path):
    file = write(tmp_path)
    (tmp_path / 'tokenizer_config.json').write_text('{"tokenizer_class": "GemmaTokenizer"}')
    with pytest.raises(UserError, match='of XLMRobertaTokenizer, T5Tokenizer, DebertaV2Tokenizer can'):
        tokenizer_lib.load(file)
