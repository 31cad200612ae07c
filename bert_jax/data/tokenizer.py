"""Tokenizers: WordPiece and byte-level BPE, trained here or loaded, by Hugging Face `tokenizers`."""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import pathlib
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from bert_jax.core.config import within
from bert_jax.core.errors import UserError

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
_FAMILIES = {
    'bert': SPECIAL,
    'roberta': ('<pad>', '<unk>', '<s>', '</s>', '<mask>'),
    'gpt2': ('<|endoftext|>',) * 4,  # one token for all, and none to mask with
}
FILE = 'tokenizer.json'
_STOP = re.compile('[.!?。！？]["\'”’»)]?\\s*$')
# Files of merges, as Hugging Face and as OpenAI name them, and of the entries beside them.
_MERGES = {'merges.txt': 'vocab.json', 'vocab.bpe': 'encoder.json'}


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer to use.

    Attributes:
      path: a `vocab.txt` of BERT, the merges of a byte-level BPE (GPT-2's `merges.txt` or `vocab.bpe`, beside its
        `vocab.json` or `encoder.json`), a `tokenizer.json`, or a folder with one of these; empty trains one.
      kind: what to train: WordPiece as in BERT, or byte-level BPE as in GPT-2.
      vocab_size: entries of a trained vocabulary, special tokens included.
      lowercase: of a trained WordPiece: also strips accents, as BERT's uncased models do.
      train_bytes: a tokenizer is trained on at most this much text, an equal share a corpus.
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
    """A `tokenizers.Tokenizer` with the special tokens of BERT, RoBERTa or GPT-2, in the terms of this project.

    Attributes:
      family: 'bert', 'roberta' or 'gpt2'.
      special: as they are written: padding, unknown, start, end and, but for GPT-2, mask.
      pad, unk, cls, sep, mask: their ids; a tokenizer of GPT-2 has no mask.
      between: ids that stand between two texts: [SEP], which RoBERTa writes twice.
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        self.backend = backend
        backend.no_truncation()
        backend.no_padding()
        known = backend.get_vocab()
        whole = [family for family, special in _FAMILIES.items() if {*special} <= {*known}]
        if not whole:
            missing = next(token for token in SPECIAL if token not in known)
            raise UserError(f'The vocabulary has no {missing}: BERT needs the tokens {" ".join(SPECIAL)}.')
        self.family, self.special = whole[0], _FAMILIES[whole[0]]
        self._size = max(known.values()) + 1  # a published vocabulary may repeat an entry
        self.pad, self.unk, self.cls, self.sep = (known[token] for token in self.special[:4])
        self.mask = known[self.special[4]] if len(self.special) > 4 else None
        self.between = (self.sep,) * (2 if self.family == 'roberta' else 1)

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
    def stops(self) -> np.ndarray:
        """[V] booleans: this entry ends a sentence."""
        flags = np.zeros(len(self), bool)
        for index in self.backend.get_vocab().values():
            flags[index] = bool(_STOP.search(self.backend.decode([index])))
        return flags

    @functools.cached_property
    def ordinary(self) -> np.ndarray:
        """Ids that are not special tokens, for drawing a random replacement."""
        vocab = self.backend.get_vocab()
        special = [vocab[token] for token in self.special]
        return np.setdiff1d(np.array([*vocab.values()], np.int32), special)

    def to_json(self) -> str:
        return self.backend.to_str(pretty=False)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name this tokenizer."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def save(self, path: pathlib.Path) -> None:
        path.write_text(self.to_json(), encoding='utf-8')

    def save_for_hf(self, folder: pathlib.Path, positions: int, segments: bool, closed: bool = True) -> None:
        """Writes what transformers reads: `tokenizer.json` and its config.

        Args:
          folder: where to.
          positions: of the model.
          segments: whether the model tells two texts apart.
          closed: whether a text gets [CLS] and [SEP], as for all models but those that go on with it.
        """
        _, _, cls, sep, *_ = self.special
        backend = tokenizers.Tokenizer.from_str(self.to_json())
        second = int(self.family != 'roberta')
        if closed and isinstance(backend.model, models.BPE) and self.family == 'roberta':
            prefix = bool(getattr(backend.pre_tokenizer, 'add_prefix_space', False))
            marks = (sep, self.sep), (cls, self.cls)  # offsets leave the space before a word out
            backend.post_processor = processors.RobertaProcessing(*marks, add_prefix_space=prefix)
        elif closed:
            backend.post_processor = processors.TemplateProcessing(
                single=f'{cls}:0 $A:0 {sep}:0',
                pair=f'{cls}:0 $A:0 {f"{sep}:0 " * len(self.between)}$B:{second} {sep}:{second}',
                special_tokens=[(cls, self.cls), (sep, self.sep)],
            )
        backend.save(str(folder / FILE), pretty=False)
        ends = ('cls_token', 'sep_token') if closed else ('bos_token', 'eos_token')
        keys = ('pad_token', 'unk_token', *ends, 'mask_token')
        names = dict(zip(keys, self.special, strict=False))
        wordpiece = isinstance(backend.model, models.WordPiece)
        config: dict[str, Any] = {
            **names,
            'model_max_length': positions,
            'tokenizer_class': 'BertTokenizer' if wordpiece else 'PreTrainedTokenizerFast',
            'model_input_names': ['input_ids', *['token_type_ids'] * segments, 'attention_mask'],
        }
        if wordpiece:
            normalizer = json.loads(self.to_json())['normalizer'] or {}
            config |= {theirs: normalizer.get(ours) for theirs, ours in _NORMALIZER.items()}
            entries = sorted(backend.get_vocab().items(), key=lambda item: item[1])
            (folder / 'vocab.txt').write_text(''.join(f'{entry}\n' for entry, _ in entries), encoding='utf-8')
        (folder / 'tokenizer_config.json').write_text(json.dumps(config, indent=2) + '\n')


def from_json(text: str) -> Tokenizer:
    """A tokenizer from the text of a `tokenizer.json`."""
    return Tokenizer(tokenizers.Tokenizer.from_str(text))


def load(path: str | pathlib.Path) -> Tokenizer:
    """Loads a `vocab.txt`, a `merges.txt`, a `tokenizer.json`, or the one in a folder.

    A `vocab.txt` is lower-cased as the `tokenizer_config.json` beside it says; without one, if none of
    its entries has an upper-case letter.

    Raises:
      UserError: if there is none, or it cannot be read.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        found = [p for name in (FILE, 'vocab.txt', *_MERGES) if (p := path / name).is_file()]
        if not found:
            raise UserError(
                f'There is no {FILE}, vocab.txt or merges.txt in {str(path)!r}: set tokenizer.path.'
            )
        path = found[0]
    if not path.is_file():
        raise UserError(f'There is no tokenizer {str(path)!r}: set tokenizer.path to a vocab.txt or {FILE}.')
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as e:
        raise UserError(f'{str(path)!r} is not text: set tokenizer.path to a vocab.txt or {FILE}.') from e
    settings = _json(path.with_name('tokenizer_config.json')) or {}
    if merges := next((name for name in _MERGES if path.name.endswith(name)), None):
        beside = path.with_name(path.name.removesuffix(merges) + _MERGES[merges])
        vocab = _json(beside)
        if vocab is None:
            raise UserError(f'{str(path)!r} are the merges of a vocabulary, which should be {str(beside)!r}.')
        return from_merges(vocab, text, bool(settings.get('add_prefix_space')))
    if path.suffix == '.txt':
        return from_vocab(text.removesuffix('\n').split('\n'), settings, _added(path, settings))
    try:
        return from_json(text)
    except UserError:
        raise
    except Exception as e:  # the library raises bare Exception
        raise UserError(f'{str(path)!r} is not a tokenizer.json: {e}.') from e


def _json(file: pathlib.Path) -> dict[str, Any] | None:
    """The contents of a file of settings; None if it is not there."""
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise UserError(f'{str(file)!r} is damaged: mend or delete it.') from e


def _added(path: pathlib.Path, settings: Mapping[str, Any]) -> list[str]:
    """Tokens that were added to a vocabulary after it was made, in the order of their ids."""
    added = dict(_json(path.with_name('added_tokens.json')) or {})
    for index, token in settings.get('added_tokens_decoder', {}).items():
        added[token['content']] = int(index)
    return sorted(added, key=added.__getitem__)


# How `tokenizer_config.json` names the settings of BERT's normalizer.
_NORMALIZER = {
    'do_lower_case': 'lowercase',
    'strip_accents': 'strip_accents',
    'tokenize_chinese_chars': 'handle_chinese_chars',
}


def from_vocab(
    entries: Sequence[str],
    settings: Mapping[str, Any] = types.MappingProxyType({}),
    added: Sequence[str] = (),
) -> Tokenizer:
    """A WordPiece tokenizer from the lines of a published `vocab.txt`; the line number is the id.

    Args:
      entries: the lines.
      settings: of a `tokenizer_config.json`. Without `do_lower_case` it is true if no entry has an upper-case
        letter; without `strip_accents` accents go where capitals go.
      added: tokens that follow the entries, each found in a text before it is split.
    """
    vocab = {entry: i for i, entry in enumerate(entries)}
    cased = any(e != e.lower() for e in entries if not (e.startswith('[') and e.endswith(']')))
    chosen = {_NORMALIZER[k]: v for k, v in settings.items() if k in _NORMALIZER and v is not None}
    tokenizer = _wordpiece(vocab, **{'lowercase': not cased, **chosen})
    if more := [token for token in added if token not in vocab]:
        tokenizer.backend.add_tokens(more)
        return Tokenizer(tokenizer.backend)
    return tokenizer


def from_words(text: str) -> Tokenizer:
    """A tokenizer whose entries are the words and marks of a text, for looking at examples."""
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)
    return _wordpiece(
        {w: i for i, w in enumerate(dict.fromkeys([*SPECIAL, *(w for w, _ in split)]))}, lowercase=False
    )


def from_merges(vocab: dict[str, int], merges: str, prefix: bool = False) -> Tokenizer:
    """A byte-level BPE (Radford et al. 2019, section 2.2) from its published files.

    Args:
      vocab: ids by entry.
      merges: lines of two entries each, that which is merged first in front; a line of '#version' counts nothing.
      prefix: whether a space is put in front of a text.
    """
    lines = [line.split(' ') for line in merges.split('\n') if line and not line.startswith('#version')]
    if odd := next((line for line in lines if len(line) != 2), None):
        raise UserError(
            f'The merges have the line {" ".join(odd)!r}: each line is two entries, split by a space.'
        )
    try:
        model = models.BPE(vocab, [(a, b) for a, b in lines])
    except Exception as e:  # the library raises bare Exception
        raise UserError(f'Vocabulary and merges do not fit each other: {e}.') from e
    backend = _byte_level(model, prefix)
    known = dict.fromkeys(itertools.chain(*_FAMILIES.values()))
    backend.add_special_tokens([t for t in known if t in vocab])
    return Tokenizer(backend)


def _byte_level(model: models.BPE, prefix: bool = False) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    return backend


def train(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Trains a tokenizer on an iterator of texts."""
    if config.kind == 'bpe':
        backend = _byte_level(models.BPE())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    else:
        texts = list(texts)
        backend = _wordpiece({t: i for i, t in enumerate(SPECIAL)}, lowercase=config.lowercase).backend
        # The trainer numbers word-internal characters by chance; naming them first makes it repeatable.
        inner = sorted(f'##{c}' for c in _inner_characters(texts, backend))
        trainer = trainers.WordPieceTrainer(
            vocab_size=config.vocab_size, special_tokens=[*SPECIAL, *inner], show_progress=False
        )
        backend.train_from_iterator(texts, trainer)
        vocab = sorted(backend.get_vocab().items(), key=lambda item: item[1])
        return _wordpiece(dict(vocab), lowercase=config.lowercase)
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)


def _inner_characters(texts: Iterable[str], backend: tokenizers.Tokenizer) -> set[str]:
    """Characters that stand within a word, after its first: whether two belong to one word depends on them alone."""
    pairs: set[tuple[str, str]] = set()
    for text in texts:
        normal = backend.normalizer.normalize_str(text)
        pairs.update(itertools.pairwise(normal))
    return {b for a, b in pairs if [p for p, _ in backend.pre_tokenizer.pre_tokenize_str(a + b)] == [a + b]}


def _wordpiece(vocab: dict[str, int], **normalizer: bool) -> Tokenizer:
    """BERT's basic tokenizer (clean, lower-case, split at spaces, punctuation, CJK), then WordPiece."""
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token='[UNK]', max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(**normalizer)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens([t for t in SPECIAL if t in vocab])
    return Tokenizer(backend)
