"""Tokenizers: WordPiece and byte-level BPE, trained here or loaded, by Hugging Face `tokenizers`."""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from bert_jax.core.config import within
from bert_jax.core.errors import UserError

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
_ROBERTA = ('<pad>', '<unk>', '<s>', '</s>', '<mask>')
FILE = 'tokenizer.json'


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer to use.

    Attributes:
      path: a `vocab.txt` of BERT, a `tokenizer.json`, or a folder with one; empty trains one.
      kind: what to train: WordPiece as in BERT, or byte-level BPE as in GPT-2.
      vocab_size: entries of a trained vocabulary, special tokens included.
      lowercase: of a trained WordPiece: also strips accents, as BERT's uncased models do.
      train_bytes: a tokenizer is trained on at most this much text, an equal share a source.
    """

    path: str = ''
    kind: Literal['wordpiece', 'bpe'] = 'wordpiece'
    vocab_size: int = 8192
    lowercase: bool = True
    train_bytes: int = 20_000_000

    def __post_init__(self) -> None:
        within(self, 'tokenizer', len(SPECIAL) + 1, math.inf, 'vocab_size')
        within(self, 'tokenizer', 1, math.inf, 'train_bytes')


class Tokenizer:
    """A `tokenizers.Tokenizer` with BERT's special tokens or RoBERTa's, in the terms of this project."""

    def __init__(self, backend: tokenizers.Tokenizer):
        self.backend = backend
        backend.no_truncation()
        backend.no_padding()
        known = backend.get_vocab()
        self.special = _ROBERTA if {*_ROBERTA} <= {*known} else SPECIAL
        found = {token: known.get(token) for token in self.special}
        missing = [token for token, index in found.items() if index is None]
        if missing:
            raise UserError(f'The vocabulary has no {missing[0]}: BERT needs the tokens {" ".join(SPECIAL)}.')
        self._size = max(known.values()) + 1  # a published vocabulary may repeat an entry
        self.pad, self.unk, self.cls, self.sep, self.mask = (index or 0 for index in found.values())

    def __len__(self) -> int:
        return self._size

    def encode(self, texts: Sequence[str], special: bool = False) -> list[np.ndarray]:
        """Ids of each text, without [CLS] and [SEP]: n arrays of int32.

        Args:
          texts: any strings.
          special: whether '[MASK]' written in a text means the special token.
        """
        self.backend.encode_special_tokens = not special
        encoded = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(e.ids, np.int32) for e in encoded]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids [n], and where each token begins and ends in its text [n, 2], of each text."""
        self.backend.encode_special_tokens = True
        encoded = self.backend.encode_batch(texts, add_special_tokens=False)
        return [(np.array(e.ids, np.int32), np.array(e.offsets, np.int32).reshape(-1, 2)) for e in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids, special tokens left out."""
        return self.backend.decode(list(map(int, ids)))

    def token(self, index: int) -> str:
        """One vocabulary entry as it is written."""
        return self.backend.id_to_token(int(index)) or '[UNK]'

    @functools.cached_property
    def continues(self) -> np.ndarray:
        """[V] booleans: this entry goes on with the word that the entry before it began.

        Words are split at spaces and, by WordPiece, at punctuation; byte-level BPE writes a
        leading space as 'Ġ', so there punctuation belongs to the word before it.
        """
        vocab = self.backend.get_vocab()
        byte_level = isinstance(self.backend.model, models.BPE)
        flags = np.zeros(len(self), bool)
        for token, index in vocab.items():
            if token not in self.special:
                flags[index] = token[0] not in 'ĠĊ' if byte_level else token.startswith('##')
        return flags

    @functools.cached_property
    def ordinary(self) -> np.ndarray:
        """Ids that are not special tokens, for drawing a random replacement."""
        special = [self.pad, self.unk, self.cls, self.sep, self.mask]
        return np.setdiff1d(np.array([*self.backend.get_vocab().values()], np.int32), special)

    def to_json(self) -> str:
        return self.backend.to_str(pretty=False)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name this tokenizer."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def save(self, path: pathlib.Path) -> None:
        path.write_text(self.to_json(), encoding='utf-8')

    def save_for_hf(self, folder: pathlib.Path, positions: int) -> None:
        """Writes what transformers reads: `tokenizer.json` that adds [CLS] and [SEP], and its config."""
        pad, unk, cls, sep, mask = self.special
        backend = tokenizers.Tokenizer.from_str(self.to_json())
        backend.post_processor = processors.TemplateProcessing(
            single=f'{cls}:0 $A:0 {sep}:0',
            pair=f'{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1',
            special_tokens=[(cls, self.cls), (sep, self.sep)],
        )
        backend.save(str(folder / FILE), pretty=False)
        names = {'pad_token': pad, 'unk_token': unk, 'cls_token': cls, 'sep_token': sep, 'mask_token': mask}
        wordpiece = isinstance(backend.model, models.WordPiece)
        config = {
            **names,
            'model_max_length': positions,
            'tokenizer_class': 'BertTokenizer' if wordpiece else 'PreTrainedTokenizerFast',
        }
        if wordpiece:
            normalizer = json.loads(self.to_json())['normalizer'] or {}
            config['do_lower_case'] = bool(normalizer.get('lowercase'))
            entries = sorted(backend.get_vocab().items(), key=lambda item: item[1])
            (folder / 'vocab.txt').write_text(''.join(f'{entry}\n' for entry, _ in entries), encoding='utf-8')
        (folder / 'tokenizer_config.json').write_text(json.dumps(config, indent=2) + '\n')


def from_json(text: str) -> Tokenizer:
    """A tokenizer from the text of a `tokenizer.json`."""
    return Tokenizer(tokenizers.Tokenizer.from_str(text))


def load(path: str | pathlib.Path) -> Tokenizer:
    """Loads a `vocab.txt`, a `tokenizer.json`, or the one in a folder.

    A `vocab.txt` is lower-cased as the `tokenizer_config.json` beside it says; without one, if none of
    its entries has an upper-case letter.

    Raises:
      UserError: if there is none, or it cannot be read.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        found = [path / name for name in (FILE, 'vocab.txt') if (path / name).is_file()]
        if not found:
            raise UserError(f'There is no {FILE} or vocab.txt in {str(path)!r}: set tokenizer.path.')
        path = found[0]
    if not path.is_file():
        raise UserError(f'There is no tokenizer {str(path)!r}: set tokenizer.path to a vocab.txt or {FILE}.')
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as e:
        raise UserError(f'{str(path)!r} is not text: set tokenizer.path to a vocab.txt or {FILE}.') from e
    if path.suffix == '.txt':
        return from_vocab(
            text.removesuffix('\n').split('\n'), _lowercase(path.with_name('tokenizer_config.json'))
        )
    try:
        return from_json(text)
    except UserError:
        raise
    except Exception as e:  # the library raises bare Exception
        raise UserError(f'{str(path)!r} is not a tokenizer.json: {e}.') from e


def _lowercase(file: pathlib.Path) -> bool | None:
    """Whether a `tokenizer_config.json` asks for lower case; None if it is not there or does not say."""
    try:
        return json.loads(file.read_text(encoding='utf-8')).get('do_lower_case')
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise UserError(f'{str(file)!r} is damaged: mend or delete it.') from e


def from_vocab(entries: Sequence[str], lowercase: bool | None = None) -> Tokenizer:
    """A WordPiece tokenizer from the lines of a published `vocab.txt`; the line number is the id.

    `lowercase` as None is true if no entry has an upper-case letter.
    """
    vocab = {entry: i for i, entry in enumerate(entries)}
    cased = any(e != e.lower() for e in entries if not (e.startswith('[') and e.endswith(']')))
    return _wordpiece(vocab, not cased if lowercase is None else lowercase)


def train(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Trains a tokenizer on an iterator of texts."""
    if config.kind == 'bpe':
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    else:
        texts = list(texts)
        backend = _wordpiece({t: i for i, t in enumerate(SPECIAL)}, config.lowercase).backend
        # The trainer numbers word-internal characters by chance; naming them first makes it repeatable.
        inner = sorted(f'##{c}' for c in _inner_characters(texts, backend))
        trainer = trainers.WordPieceTrainer(
            vocab_size=config.vocab_size, special_tokens=[*SPECIAL, *inner], show_progress=False
        )
        backend.train_from_iterator(texts, trainer)
        vocab = sorted(backend.get_vocab().items(), key=lambda item: item[1])
        return _wordpiece(dict(vocab), config.lowercase)
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)


def _inner_characters(texts: Iterable[str], backend: tokenizers.Tokenizer) -> set[str]:
    """Characters that stand within a word, after its first: whether two belong to one word depends on them alone."""
    pairs: set[tuple[str, str]] = set()
    for text in texts:
        normal = backend.normalizer.normalize_str(text)
        pairs.update(itertools.pairwise(normal))
    return {b for a, b in pairs if [p for p, _ in backend.pre_tokenizer.pre_tokenize_str(a + b)] == [a + b]}


def _wordpiece(vocab: dict[str, int], lowercase: bool) -> Tokenizer:
    """BERT's basic tokenizer (clean, lower-case, split at spaces, punctuation, CJK), then WordPiece."""
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token='[UNK]', max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens([t for t in SPECIAL if t in vocab])
    return Tokenizer(backend)
