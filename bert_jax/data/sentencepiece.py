"""Read SentencePiece models (Kudo & Richardson 2018) of published folders that have no `tokenizer.json`."""

import pathlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer_settings
from bert_jax.data.tokenizer_settings import Settings

# Names of the files, and the class of transformers for a file without settings.
FILES = {
    'sentencepiece.bpe.model': 'XLMRobertaTokenizer',
    'spiece.model': 'T5Tokenizer',
    'spm.model': 'DebertaV2Tokenizer',
}
# Special tokens of each class, in the order in which transformers adds those that a vocabulary lacks.
_SPECIAL = {
    'XLMRobertaTokenizer': ('<s>', '</s>', '<unk>', '<pad>', '<mask>'),
    'T5Tokenizer': ('</s>', '<unk>', '<pad>'),
    'DebertaV2Tokenizer': ('[CLS]', '[SEP]', '[UNK]', '[PAD]', '[MASK]'),
}
_UNIGRAM, _CONTROL, _USER_DEFINED = 1, 3, 4


class SentencePiece(NamedTuple):
    """Contents of a SentencePiece model.

    Attributes:
      pieces: text, score and type of each piece, in the order of the ids.
      model_type: 1 for a Unigram model.
      unk_id: id of the unknown token.
      byte_fallback: whether unknown characters become bytes.
      characters: table of normalized characters as `normalizers.Precompiled` reads it; empty if there is none.
    """

    pieces: list[tuple[str, float, int]]
    model_type: int = _UNIGRAM
    unk_id: int = 0
    byte_fallback: bool = False
    characters: bytes = b''


def read(path: pathlib.Path) -> SentencePiece:
    """Parse a SentencePiece model, which is a protocol buffer.

    The numbers of the fields are those of `sentencepiece_model.proto`.

    Raises:
      UserError: if the file is damaged.
    """
    try:
        pieces, trainer, normalizer = [], {}, {}
        for field, value in _fields(path.read_bytes()):
            if field == 1:
                piece = dict(_fields(value))
                pieces.append(
                    (piece[1].decode(), *struct.unpack('<f', piece.get(2, bytes(4))), piece.get(3, 1))
                )
            elif field == 2:
                trainer = dict(_fields(value))
            elif field == 3:
                normalizer = dict(_fields(value))
        byte_fallback = bool(trainer.get(35, 0))
        found = SentencePiece(
            pieces, trainer.get(3, 1), trainer.get(40, 0), byte_fallback, normalizer.get(2, b'')
        )
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, struct.error) as e:
        raise UserError(f'{str(path)!r} is not a SentencePiece model. Download it again.') from e
    if not found.pieces or found.unk_id >= len(found.pieces):
        raise UserError(f'{str(path)!r} has no pieces. Download it again.')
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field of a message: an integer, or bytes."""
    position = 0

    def integer() -> int:
        nonlocal position
        value, shift = 0, 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(data):
        key = integer()
        kind = key & 7
        if kind == 0:
            yield key >> 3, integer()
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f'wire type {kind}')
        size = {1: 8, 5: 4}.get(kind) or integer()
        if position + size > len(data):
            raise ValueError('truncated')
        yield key >> 3, data[position : position + size]
        position += size


def load_backend(path: pathlib.Path) -> tuple[tokenizers.Tokenizer, Settings]:
    """Make a tokenizer from a SentencePiece model and the settings files next to it, as transformers does.

    XLM-R has the ids of fairseq: its special tokens come first, so that all other ids are one higher than in the file.

    Raises:
      UserError: if the file is damaged or of a kind that is not supported.
    """
    model, settings = read(path), tokenizer_settings.read(path.parent)
    name = settings.class_name or tokenizer_settings.class_of_model(path.parent) or FILES[path.name]
    if name not in _SPECIAL or model.model_type != _UNIGRAM or model.byte_fallback:
        raise UserError(
            f'{str(path)!r} cannot be read without a tokenizer.json: only Unigram models without byte fallback of '
            f'{", ".join(_SPECIAL)} can. Save the tokenizer with transformers, which writes a tokenizer.json.'
        )
    values = settings.values
    entries = [(piece, score) for piece, score, _ in model.pieces]
    unk_id = model.unk_id
    if name == 'XLMRobertaTokenizer':
        entries = [
            *((token, 0.0) for token in ('<s>', '<pad>', '</s>', '<unk>')),
            *entries[3:],
            ('<mask>', 0.0),
        ]
        unk_id = 3
    elif name == 'T5Tokenizer':
        entries += [(f'<extra_id_{i}>', 0.0) for i in reversed(range(values.get('extra_ids', 100)))]
    backend = tokenizers.Tokenizer(models.Unigram(entries, unk_id=unk_id, byte_fallback=False))
    _set_steps(backend, name, model, values)
    named = [AddedToken(token, special=True) for token in _SPECIAL[name]]
    added = [
        AddedToken(piece, normalized=False, special=kind == _CONTROL)
        for piece, _, kind in model.pieces
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    if name == 'T5Tokenizer':
        added += [AddedToken(piece, special=True) for piece, _ in entries[len(model.pieces) :]]
    known: set[str] = set()
    for token in (*settings.added, *named, *added):
        if token.content not in known:
            backend.add_tokens([token])
        known.add(token.content)
    return backend, settings


def _set_steps(backend: tokenizers.Tokenizer, name: str, model: SentencePiece, values: Any) -> None:
    """Set the normalizer, the split into words and the decoder of a class of transformers."""
    has_prefix = values.get('add_prefix_space', True)
    steps: list[Any] = []
    if name == 'DebertaV2Tokenizer':  # transformers 5 does not read the table of normalized characters
        backend.normalizer = normalizers.Sequence(
            [
                *([normalizers.Lowercase()] if values.get('do_lower_case') else []),
                normalizers.Replace(Regex(r'\s{2,}|[\n\r\t]'), ' '),
                normalizers.NFC(),
                normalizers.Strip(left=False, right=True),
            ]
        )
        scheme = 'always' if has_prefix else 'first'
        steps = [pre_tokenizers.Punctuation('isolated')] if values.get('split_by_punct') else []
    else:
        if model.characters:
            backend.normalizer = normalizers.Precompiled(model.characters)
        scheme = 'never' if name == 'XLMRobertaTokenizer' and not has_prefix else 'always'
        steps = [pre_tokenizers.WhitespaceSplit()]
    metaspace: Any = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, metaspace])
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
