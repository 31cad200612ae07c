"""Write golden_tokenizers.json: what transformers makes of folders of tokenizers with all combinations of settings.

Usage: python tests/data/make_golden_tokenizers.py. Needs transformers 5, sentencepiece and protobuf. The file holds hashes of the
ids and offsets of all texts, and one pair, for each folder; the tests build the same folders and texts.
"""

import array
import base64
import hashlib
import itertools
import json
import pathlib
import random
import struct
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

FILE = pathlib.Path(__file__).with_name('golden_tokenizers.json')
SIZES = (50, 2000)  # numbers of texts in a fast and in a thorough test
FRAGMENTS = [
    *'aAbzZ09éÉüßñÅøıİǅﬁ½²™',
    *('e\u0301', 'a\u0308', 'n\u0303', '\u0301', 'Ångström', 'naïve', 'Straße', 'ΑΣ', 'привет', 'Й', 'и\u0306'),
    *('the', 'The', 'cat', 'cats', 'running', "don't", "O'Neil's", 'hello', 'world', 'hello,world', 'U.S.A.'),
    *('中', '文', '中文字符', '日本語', 'カタカナ', '한국어', 'עברית', 'عربي', 'ไทย', 'हिन्दी', '𠀀', '豈'),
    *('😀', '👩‍👩‍👧', '🇩🇪', '\u200b', '\u200d', '\ufeff', '\xa0', '\u3000', '\t', '\n', '\r\n', '\x00', '\x01', '\ufffd', '\x85'),
    *('[MASK]', '[CLS]', '[SEP]', '[UNK]', '[PAD]', '[mask]', '<mask>', '<s>', '</s>', '<pad>', '<unk>', '<|endoftext|>'),
    *('[new]', '<extra>', 'addedword', 'AddedWord', '##s', '##', '[', ']', '<', '>', '.', ',', '!', '…', '—', '$', '`', '_'),
]  # fmt: skip
SPECIAL = {
    'bert': ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'),
    'roberta': ('<s>', '<pad>', '</s>', '<unk>', '<mask>'),
    'gpt2': ('<|endoftext|>',),
    'mpnet': ('<s>', '<pad>', '</s>', '[UNK]', '<mask>'),
    'albert': ('<pad>', '<unk>', '[CLS]', '[SEP]', '[MASK]'),
    'gemma': ('<pad>', '<eos>', '<bos>', '<unk>', '<mask>'),
    't5': ('<pad>', '</s>', '<unk>'),
}
WORDS = ['the', 'cat', 'hello', 'world', 'naive', 'naïve', 'run', '##ning', 'The', 'straße', 'angstrom']
MERGES = [
    merge.split('+')
    for merge in [
        'Ġ+t',
        'h+e',
        'Ġt+he',
        'c+a',
        'ca+t',
        'Ġ+cat',
        'l+l',
        'll+o',
        'he+llo',
        'Ġ+hello',
        'Ġ+w',
        'r+l',
    ]
]


def texts() -> list[str]:
    """Make awkward texts."""
    rng = random.Random(0)
    return [
        ''.join(rng.choice(FRAGMENTS) + rng.choice(['', ' ', ' ', '  ']) for _ in range(rng.randint(0, 9)))
        for _ in range(SIZES[-1])
    ]


def _wordpiece_vocab() -> dict[str, int]:
    characters = sorted({c for fragment in FRAGMENTS for c in fragment if not c.isspace()})
    lower = sorted({c for x in characters for c in x.lower()})
    entries = [*SPECIAL['bert'], *WORDS, *characters[:-9], *lower, *(f'##{c}' for c in characters[:-9])]
    return {entry: i for i, entry in enumerate(dict.fromkeys(entries))}


def _bpe_vocab() -> list[str]:
    return [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in MERGES)]


SENTENCEPIECE_ROLES = {
    family: {f'{role}_token': token for role, token in zip(roles, tokens, strict=True)}
    for family, roles, tokens in (
        ('roberta', ('bos', 'pad', 'eos', 'unk', 'mask', 'cls', 'sep'), (*SPECIAL['roberta'], '<s>', '</s>')),
        ('gemma', ('pad', 'eos', 'bos', 'unk', 'mask', 'cls', 'sep'), (*SPECIAL['gemma'], '<bos>', '<eos>')),
        ('t5', ('pad', 'eos', 'unk'), SPECIAL['t5']),
    )
}


def _unigram(family: str) -> tokenizers.Tokenizer:
    """A tokenizer as that of XLM-R ('roberta') or T5, without its map of characters."""
    special = SPECIAL['roberta'][:4] if family == 'roberta' else SPECIAL[family]
    characters = sorted({c for fragment in FRAGMENTS for c in fragment if not c.isspace()})[:-9]
    pieces = ['▁', '▁the', '▁cat', 's', '▁run', 'ning', '▁hello', 'ello', '▁world', '▁naïve', *characters]
    entries = [(token, 0.0) for token in special]
    entries += [(piece, -3.0 - i / 8) for i, piece in enumerate(dict.fromkeys(pieces))]
    sentinels = [f'<extra_id_{i}>' for i in reversed(range(3))] if family == 't5' else []
    entries += [(token, 0.0) for token in sentinels]
    backend = tokenizers.Tokenizer(models.Unigram(entries, unk_id=special.index('<unk>')))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens([*special, *sentinels])
    if family == 't5':
        backend.post_processor = processors.TemplateProcessing(
            single='$A </s>', pair='$A </s> $B </s>', special_tokens=[('</s>', 1)]
        )
        return backend
    backend.add_special_tokens([tokenizers.AddedToken('<mask>', lstrip=True, special=True)])
    backend.post_processor = processors.TemplateProcessing(
        single='<s> $A </s>', pair='<s> $A </s> </s> $B </s>', special_tokens=[('<s>', 0), ('</s>', 2)]
    )
    return backend


def _byte_fallback_bpe() -> tokenizers.Tokenizer:
    """A tokenizer as that of Gemma and mmBERT: BPE of characters, and of bytes for the others."""
    characters = sorted({c for fragment in FRAGMENTS for c in fragment if not c.isspace()})[:-9]
    merges = [
        ('▁', 't'),
        ('h', 'e'),
        ('▁t', 'he'),
        ('c', 'a'),
        ('ca', 't'),
        ('▁', 'cat'),
        ('l', 'l'),
        ('▁', '▁'),
    ]
    entries = [*SPECIAL['gemma'], *(f'<0x{i:02X}>' for i in range(256)), '▁', '\n', *characters]
    vocab = {entry: i for i, entry in enumerate(dict.fromkeys([*entries, *(a + b for a, b in merges)]))}
    model = models.BPE(vocab, merges, unk_token='<unk>', fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Replace(' ', '▁')
    backend.pre_tokenizer = pre_tokenizers.Split(' ', 'merged_with_previous')
    backend.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens([*SPECIAL['gemma']])
    backend.post_processor = processors.TemplateProcessing(
        single='<bos> $A <eos>', pair='<bos> $A <eos> $B <eos>', special_tokens=[('<bos>', 2), ('<eos>', 1)]
    )
    return backend


# A table of normalized characters that SentencePiece has made of the rules ﬁ -> fi, ² -> 2, ½ -> 1/2, ™ -> TM, … -> ...,
# e and an accent -> é, Ａ -> A, ß -> ss, and of U+3000, U+200B and a tab to a space.
CHARACTERS = zlib.decompress(
    base64.b64decode(
        'eNod0w1w13McB/DP/kd33Ljrzp3FklOI+I9FUakmJIzSJExSGeOqMQ8VZWM0zWMpysPaaCyjjMjDIvN4N6zQg8IyXXPXk6fMU/X6+d297v3+3u'
        'd3v/ve/b7fOCAijo446JBInrKWrFSUHxhxuN4oD5bVZk100Q+j6syIlKw1P1SWFaaiLJO8iK7WFW2+0S2ixjzTWo0sjuQIupNND46ioTUVda9G'
        '9NSP4Vh6cTzHcQK96cOJnMxJ5JDm3exUnCL7ksvpnEZ/+mG7cQYDGcBZDGIIg7HtGMowzuZczmE45zGC87mQC8jnIi7hYkYxktFcymUUcDljuI'
        'KxXMWVXE0h1zCOaxnPRCZwHZO4niKKuYGbuJHJyTuVqZgqp3AzJZRyC7dxK3dwO9OZxp3MYCZ3cTezKE9+PPdyD/dRwWzu5wEqqWIOD/Egj/Aw'
        'j/Eo85jLfB7nCRawkCd5ikU8w9NU8yw1LOY5alnC87xAHfW8yEss5eXkzLCMV3B0Yjmv0cgKXudN3uAtVvIOb9OUnBneYxWreZ9mPuAjPuQTPu'
        'YzPk1mnRnRXJIRn+stfMkXrKGVr1jLN3zNetaxkQ1s4lu+YzM/8D1baKOdH9nKT2xjV0NG/Cw7kllHRrSzQ9+ezNjJL+zmN37lD37nT/bwF538'
        'w9/8x7/sY+//1z+dTsepObluT14U5EdRcZSWRnN97Ac3+Jpp'
    )
)


def _message(*fields: tuple[int, Any]) -> bytes:
    """Write a protocol buffer of numbered fields: integers, floats, texts and bytes."""

    def integer(value: int) -> bytes:
        return integer_bytes(value & 127 | 128) + integer(value >> 7) if value > 127 else integer_bytes(value)

    def integer_bytes(value: int) -> bytes:
        return bytes([value])

    data = b''
    for number, value in fields:
        if isinstance(value, int):
            data += integer(number << 3) + integer(value)
        elif isinstance(value, float):
            data += integer(number << 3 | 5) + struct.pack('<f', value)
        else:
            value = value.encode() if isinstance(value, str) else value
            data += integer(number << 3 | 2) + integer(len(value)) + value
    return data


# Class, name of the file, special pieces with their types, id of the unknown token, and settings.
MODELS: dict[str, tuple[str, str, dict[str, int], tuple[dict[str, Any], ...]]] = {
    'xlm-roberta': (
        'XLMRobertaTokenizer',
        'sentencepiece.bpe.model',
        {'<unk>': 2, '<s>': 3, '</s>': 3},
        ({}, {'add_prefix_space': False}),
    ),
    't5': ('T5Tokenizer', 'spiece.model', {'<pad>': 3, '</s>': 3, '<unk>': 2}, ({}, {'extra_ids': 3})),
    'deberta-v2': (
        'DebertaV2Tokenizer',
        'spm.model',
        {'[PAD]': 3, '[CLS]': 3, '[SEP]': 3, '[UNK]': 2},
        ({}, {'do_lower_case': True}, {'split_by_punct': True}, {'add_prefix_space': False}),
    ),
}


def sentencepiece_model(model_type: str, characters: bytes) -> bytes:
    """Make a Unigram model of SentencePiece with the special tokens of a model type."""
    special = MODELS[model_type][2]
    ordinary = sorted({c for fragment in FRAGMENTS for c in fragment if not c.isspace()})[:-9]
    words = [
        '▁',
        '▁the',
        '▁cat',
        's',
        '▁run',
        'ning',
        '▁hello',
        'ello',
        '▁world',
        '▁naïve',
        'fi',
        'TM',
        '...',
    ]
    pieces = [(1, _message((1, piece), (2, 0.0), (3, kind))) for piece, kind in special.items()]
    for i, piece in enumerate(dict.fromkeys([*words, *ordinary])):
        pieces.append((1, _message((1, piece), (2, -3.0 - i / 8))))
    pieces.append((1, _message((1, 'addedword'), (2, 0.0), (3, 4))))
    trainer = _message((3, 1), (40, [*special.values()].index(2)))
    return _message(
        *pieces, (2, trainer), (3, _message((1, 'rules'), *([(2, characters)] if characters else [])))
    )


def _model_folders() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the names and files of folders with a SentencePiece model and no tokenizer.json."""
    for model_type, (class_name, file, _, all_settings) in MODELS.items():
        for characters in (b'', CHARACTERS):
            files = {
                file: sentencepiece_model(model_type, characters),
                'config.json': {'model_type': model_type},
            }
            name = f'{class_name} of {file} with {len(characters)} bytes'
            yield f'{name} alone', files
            for settings in all_settings:
                config = {'tokenizer_class': class_name, **settings}
                yield f'{name} and {settings}', {**files, 'tokenizer_config.json': config}


ADDED = {
    'none': {},
    'decoder': {
        'added_tokens_decoder': {
            '900': {'content': '[new]', 'lstrip': False, 'normalized': True, 'rstrip': False, 'single_word': True, 'special': False},
            '905': {'content': 'addedword', 'lstrip': True, 'normalized': True, 'rstrip': True, 'single_word': False, 'special': False},
            '902': {'content': '<extra>', 'lstrip': False, 'normalized': False, 'rstrip': False, 'single_word': False, 'special': True},
        }
    },
}  # fmt: skip


def _sentencepiece_files() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the names and files of the folders of SentencePiece tokenizers."""
    own_classes = {'roberta': 'XLMRobertaTokenizerFast', 'gemma': 'GemmaTokenizer', 't5': 'T5TokenizerFast'}
    for family, own_class in own_classes.items():
        backend = _byte_fallback_bpe() if family == 'gemma' else _unigram(family)
        for class_name, (added, values) in itertools.product(
            (own_class, 'PreTrainedTokenizerFast'), ADDED.items()
        ):
            contents = json.loads(backend.to_str())
            config = {'tokenizer_class': class_name, **SENTENCEPIECE_ROLES[family]}
            if family == 't5':
                config['extra_ids'] = 3
            if values:  # published settings list the special tokens too
                tokens = contents['added_tokens']
                special = {str(t['id']): {k: v for k, v in t.items() if k != 'id'} for t in tokens}
                config['added_tokens_decoder'] = special | values['added_tokens_decoder']
            files = {'tokenizer.json': contents, 'tokenizer_config.json': config}
            yield f'{class_name} of {family} added {added}', files


def _albert_files() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the names and files of the folders of tokenizers as that of ALBERT, a Unigram model with BERT's special tokens."""
    characters = sorted({c for fragment in FRAGMENTS for c in fragment if not c.isspace()})[:-9]
    pieces = ['▁', '▁the', '▁cat', 's', '▁run', 'ning', '▁hello', 'ello', '▁world', '▁naive', *characters]
    entries = [(token, 0.0) for token in SPECIAL['albert']]
    entries += [(piece, -3.0 - i / 8) for i, piece in enumerate(dict.fromkeys(pieces))]
    for lowercase, keeps_accents in itertools.product((True, False), repeat=2):
        backend = tokenizers.Tokenizer(models.Unigram(entries, unk_id=1))
        steps = [normalizers.Replace('``', '"'), normalizers.Replace("''", '"')]
        steps += [] if keeps_accents else [normalizers.NFKD(), normalizers.StripAccents()]
        backend.normalizer = normalizers.Sequence([*steps, *[normalizers.Lowercase()] * lowercase])
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
        backend.decoder = decoders.Metaspace()
        mask = tokenizers.AddedToken('[MASK]', lstrip=True, special=True, normalized=False)
        backend.add_special_tokens([*SPECIAL['albert'][:4], mask])
        backend.post_processor = processors.TemplateProcessing(
            single='[CLS]:0 $A:0 [SEP]:0',
            pair='[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1',
            special_tokens=[('[CLS]', 2), ('[SEP]', 3)],
        )
        options = {'do_lower_case': lowercase, 'keep_accents': keeps_accents}
        config = {'tokenizer_class': 'AlbertTokenizer', **options}
        yield (
            f'AlbertTokenizer {options}',
            {'tokenizer.json': backend.to_str(), 'tokenizer_config.json': config},
        )


def _mpnet_files() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the names and files of the folders of tokenizers as that of MPNet: BERT's vocabulary and other special tokens."""
    words = [word for word in _wordpiece_vocab() if word not in SPECIAL['mpnet']]
    both = ['<s>', '<pad>', '</s>', '<unk>', '[PAD]', '[UNK]', *words[1:], '<mask>']
    apart = [*SPECIAL['mpnet'], *(word for word in words if word not in SPECIAL['bert'])]
    roles = ('bos_token', 'pad_token', 'eos_token', 'unk_token', 'mask_token')
    special = dict(zip(roles, SPECIAL['mpnet'], strict=True)) | {'cls_token': '<s>', 'sep_token': '</s>'}
    for (kind, entries), settings in itertools.product(
        {'apart': apart, 'both': both}.items(), ({}, {'do_lower_case': False}, special)
    ):
        vocab = {entry: i for i, entry in enumerate(dict.fromkeys(entries))}
        backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token='[UNK]'))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.add_special_tokens([*SPECIAL['mpnet']])
        config = {'tokenizer_class': 'MPNetTokenizer', **settings}
        sources = (
            {'vocab.txt': ''.join(f'{entry}\n' for entry in vocab)},
            {'tokenizer.json': backend.to_str()},
        )
        for source in sources:
            name = f'MPNetTokenizer {kind} {sorted(settings)} {next(iter(source))}'
            yield name, {**source, 'tokenizer_config.json': config}


def folders(parent: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Write a folder for each combination of settings and yield its name and path."""

    def make(name: str, files: dict[str, object]) -> tuple[str, pathlib.Path]:
        folder = parent / hashlib.sha256(name.encode()).hexdigest()[:16]
        folder.mkdir()
        for file, content in files.items():
            if isinstance(content, bytes):
                (folder / file).write_bytes(content)
                continue
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / file).write_text(text, encoding='utf-8')
        return name, folder

    vocab = _wordpiece_vocab()
    lines = ''.join(f'{entry}\n' for entry in vocab)
    contrary = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token='[UNK]'))
    contrary.normalizer = normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=False)
    contrary.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    contrary.post_processor = processors.BertProcessing(('[SEP]', vocab['[SEP]']), ('[CLS]', vocab['[CLS]']))
    contrary.add_special_tokens([*SPECIAL['bert']])
    sources = {
        'vocab.txt': {'vocab.txt': lines},
        'tokenizer.json': {'tokenizer.json': contrary.to_str()},
        'both': {'vocab.txt': lines, 'tokenizer.json': contrary.to_str()},
    }
    options = {
        'do_lower_case': ('absent', True, False),
        'strip_accents': ('absent', None, True, False),
        'tokenize_chinese_chars': ('absent', True, False),
    }
    for values in itertools.product(*options.values()):
        settings = {k: v for k, v in zip(options, values, strict=True) if v != 'absent'}
        for source, class_name in itertools.product(sources, ('BertTokenizer', 'DistilBertTokenizerFast')):
            config = {'tokenizer_class': class_name, **settings}
            yield make(
                f'{class_name} {source} {settings}', {**sources[source], 'tokenizer_config.json': config}
            )
    for added, values in ADDED.items():
        for source, class_name in itertools.product(sources, ('BertTokenizer', 'PreTrainedTokenizerFast')):
            if source == 'vocab.txt' and class_name != 'BertTokenizer':
                continue
            config = {'tokenizer_class': class_name, 'do_lower_case': False, **values}
            if class_name != 'BertTokenizer':
                config |= dict(
                    zip(
                        ('pad_token', 'unk_token', 'cls_token', 'sep_token', 'mask_token'),
                        SPECIAL['bert'],
                        strict=True,
                    )
                )
            files = {**sources[source], 'tokenizer_config.json': config}
            yield make(f'{class_name} {source} added {added}', files)
    legacy = {
        'tokenizer_config.json': {'tokenizer_class': 'BertTokenizer'},
        'added_tokens.json': {'[new]': 900, 'addedword': 901},
    }
    special = {'special_tokens_map.json': {'mask_token': '[MASK]', 'additional_special_tokens': ['<extra>']}}
    yield make('legacy added tokens', {**sources['vocab.txt'], **legacy, **special})
    for class_name in ('RobertaTokenizer', 'BartTokenizerFast', 'GPT2Tokenizer'):
        family = 'gpt2' if class_name.startswith('GPT2') else 'roberta'
        vocab = {entry: i for i, entry in enumerate([*SPECIAL[family], *_bpe_vocab()])}
        contrary = tokenizers.Tokenizer(models.BPE(vocab, [(a, b) for a, b in MERGES]))
        contrary.add_special_tokens([*SPECIAL[family]])
        two = {
            'vocab.json': vocab,
            'merges.txt': '#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in MERGES),
        }
        for prefix, source, (added, values) in itertools.product(
            ('absent', True, False), ('two', 'json'), ADDED.items()
        ):
            contrary.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix is not True)
            settings = {} if prefix == 'absent' else {'add_prefix_space': prefix}
            files = two if source == 'two' else {'tokenizer.json': contrary.to_str()}
            config = {'tokenizer_class': class_name, **settings, **values}
            yield make(
                f'{class_name} {source} {settings} added {added}', {**files, 'tokenizer_config.json': config}
            )

    for name, files in itertools.chain(
        _sentencepiece_files(), _model_folders(), _albert_files(), _mpnet_files()
    ):
        yield make(name, files)


def digest(backend: tokenizers.Tokenizer, texts: list[str]) -> str:
    """Hash the ids and offsets of texts, with special tokens written in a text first as tokens, then as characters."""
    found = hashlib.sha256()
    for is_special_text in (False, True):
        backend.encode_special_tokens = is_special_text
        for encoded in backend.encode_batch(texts, add_special_tokens=False):
            numbers = itertools.chain([len(encoded.ids)], encoded.ids, *encoded.offsets)
            found.update(array.array('q', numbers).tobytes())
    return found.hexdigest()[:16]


def word_lists() -> list[list[str]]:
    """Split texts without special tokens into words."""
    fragments = [f for f in FRAGMENTS if not {*f} & {*'[]<>'}]
    rng = random.Random(1)
    return [
        [''.join(rng.choices(fragments, k=rng.randint(1, 3))) for _ in range(7)] for _ in range(SIZES[-1])
    ]


def words_digest(ids: list[list[list[int]]]) -> str:
    """Hash the ids of each word of each text."""
    numbers = [n for text in ids for word in text for n in (len(word), *word)]
    return hashlib.sha256(array.array('q', numbers).tobytes()).hexdigest()[:16]


def _encode_words(tokenizer: Any, words: list[str]) -> list[list[int]]:
    encoded = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    pairs = [*zip(encoded.word_ids(), encoded.input_ids, strict=True)]
    return [[i for word, i in pairs if word == n] for n in range(len(words))]


def main() -> None:
    from transformers import AutoTokenizer

    golden = {}
    made = texts()
    with tempfile.TemporaryDirectory() as parent:
        for name, folder in folders(pathlib.Path(parent)):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            backend = tokenizer.backend_tokenizer
            (pair,) = backend.encode_batch([('the cat', 'hello')])
            golden[name] = [*(digest(backend, made[:n]) for n in SIZES), pair.ids, pair.type_ids]
            if name.endswith(
                "{'add_prefix_space': True} added none"
            ):  # transformers refuses words without it
                words = [_encode_words(tokenizer, words) for words in word_lists()]
                golden[name].append([words_digest(words[:n]) for n in SIZES])
    FILE.write_text(json.dumps(golden) + '\n')


if __name__ == '__main__':
    main()
