"""Tokenizers: WordPiece and byte-level BPE, trained or loaded with Hugging Face `tokenizers`, and loaded SentencePiece."""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.data import sentencepiece, tokenizer_checks, tokenizer_settings

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
_FAMILIES = {
    'bert': SPECIAL,
    'mpnet': ('<pad>', '[UNK]', '<s>', '</s>', '<mask>'),
    'albert': ('<pad>', '<unk>', '[CLS]', '[SEP]', '[MASK]'),
    'roberta': ('<pad>', '<unk>', '<s>', '</s>', '<mask>'),
    'gemma': ('<pad>', '<unk>', '<bos>', '<eos>', '<mask>'),
    't5': ('<pad>', '<unk>', '</s>', '</s>'),  # no start token, and no mask token
    'eurobert': (*('<|end_of_text|>',) * 2, '<|begin_of_text|>', '<|end_of_text|>', '<|mask|>'),
    'gpt2': ('<|endoftext|>',) * 4,  # one token for all roles, and no mask token
}
_KINDS: dict[type, Literal['wordpiece', 'bpe', 'unigram']] = {
    models.WordPiece: 'wordpiece',
    models.BPE: 'bpe',
    models.Unigram: 'unigram',
}
FILE = 'tokenizer.json'
_SENTENCE_END = re.compile('[.!?。！？]["\'”’»)]?\\s*$')
# Merges files, as named by Hugging Face and by OpenAI, and the vocabulary file that belongs to each.
_MERGES = {'merges.txt': 'vocab.json', 'vocab.bpe': 'encoder.json'}
# BERT's normalizer settings: key in `tokenizer_config.json` -> key in `tokenizer.json`.
NORMALIZER = {
    'do_lower_case': 'lowercase',
    'strip_accents': 'strip_accents',
    'tokenize_chinese_chars': 'handle_chinese_chars',
}


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Settings of the tokenizer.

    Attributes:
      path: file to load: BERT's `vocab.txt`, the merges of a byte-level BPE (GPT-2's `merges.txt` or `vocab.bpe`,
        with `vocab.json` or `encoder.json` in the same folder), a `tokenizer.json`, a SentencePiece model
        (`sentencepiece.bpe.model`, `spiece.model` or `spm.model`), or a folder with one of these.
        Empty trains a tokenizer.
      kind: type of tokenizer to train: WordPiece as in BERT, or byte-level BPE as in GPT-2. A loaded tokenizer may also be
        a Unigram model.
      vocab_size: largest number of entries of a trained vocabulary, including special tokens.
      max_characters: largest number of entries of a trained WordPiece vocabulary that are single characters. The most
        frequent characters are kept; words with others become [UNK]. 0 uses half of `vocab_size`, at least 500, and
        the rest of the vocabulary.
      lowercase: whether a trained WordPiece tokenizer lowercases and strips accents, as BERT's uncased models do.
      train_bytes: largest amount of training text in bytes, divided equally among the corpora.
    """

    path: str = ''
    kind: Literal['wordpiece', 'bpe', 'unigram'] = 'wordpiece'
    vocab_size: int = 8192
    max_characters: int = 0
    lowercase: bool = True
    train_bytes: int = 20_000_000

    def __post_init__(self) -> None:
        smallest = len(SPECIAL) + (256 if self.kind == 'bpe' else 1)  # BPE has an entry for each byte
        check_range(self, 'tokenizer', smallest, math.inf, 'vocab_size')
        check_range(self, 'tokenizer', 1, math.inf, 'train_bytes')
        check_range(self, 'tokenizer', 0, self.vocab_size - len(SPECIAL), 'max_characters')


class Tokenizer:
    """A Hugging Face tokenizer with the special tokens of BERT, MPNet, ALBERT, RoBERTa, Gemma, T5, EuroBERT or GPT-2.

    The attributes of special tokens have the names from BERT in all cases.

    Attributes:
      backend: the wrapped `tokenizers.Tokenizer`.
      family: model that the special tokens come from: 'bert', 'mpnet', 'albert', 'roberta', 'gemma', 't5', 'eurobert' or
        'gpt2'. If a vocabulary has those of several, it is the first whose tokens are all special.
      special_tokens: strings of the special tokens: padding, unknown, start, end and, except for T5 and GPT-2, mask.
      pad, unk, cls, sep, mask: ids of the special tokens; `mask` is None for T5 and GPT-2.
      prefix: ids before a text: `cls`; none for T5, whose `cls` is `sep`.
      decoder_start: id with which the decoder of an encoder-decoder begins: `pad` for T5, otherwise `sep`.
      sentinels: ids of the tokens '<extra_id_0>', '<extra_id_1>', ..., which replace spans of a text in T5; often none.
      separators: ids between two texts: `sep` twice for RoBERTa and MPNet, otherwise once.
      source: path of the file or the checkpoint that the tokenizer is from; empty if it is from neither.
      adds_special_tokens: whether a call adds [CLS] and [SEP]; `bert_jax.load` turns it off for a causal language
        model, which continues a text.
      longest_row: largest number of tokens of a row of a call; `bert_jax.load` sets it to that of the model.
    """

    source = ''

    def __init__(self, backend: tokenizers.Tokenizer):
        self.backend = backend
        backend.no_truncation()
        backend.no_padding()
        vocab = backend.get_vocab()
        added = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        matching = [
            family
            for known in (added, {*vocab})
            for family, special in _FAMILIES.items()
            if {*special} <= known and (known is not added or family != 'gpt2')
        ]
        if not matching:
            missing = next(token for token in SPECIAL if token not in vocab)
            raise UserError(
                f'The vocabulary has no {missing}. Set tokenizer.path to a vocabulary with {" ".join(SPECIAL)}.'
            )
        self.family, self.special_tokens = matching[0], _FAMILIES[matching[0]]
        self._size = max(vocab.values()) + 1  # a published vocabulary may repeat an entry
        self.pad, self.unk, self.cls, self.sep = (vocab[token] for token in self.special_tokens[:4])
        self.mask = vocab[self.special_tokens[4]] if len(self.special_tokens) > 4 else None
        self.prefix: tuple[int, ...] = () if self.family == 't5' else (self.cls,)
        self.decoder_start = self.pad if self.family == 't5' else self.sep
        self.separators = (self.sep,) * (2 if self.family in ('roberta', 'mpnet') else 1)
        self.sentinels = _find_sentinels(vocab)
        self.adds_special_tokens, self.longest_row = True, math.inf

    def __call__(
        self,
        texts: str | Iterable[str],
        pairs: str | Iterable[str] | None = None,
        max_length: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Make the inputs of a model from texts: `model(**tokenizer(texts))`.

        A row is [CLS] text [SEP], or [CLS] text [SEP] second text [SEP]. Special tokens in a text, such as [MASK], are
        read as such. Rows are padded to the same power of two, at least 64, so that texts of many lengths share few
        compiled programs.

        Args:
          texts: a text, or B texts in a list, tuple or other iterable; a tuple of two strings is two texts, not a pair.
          pairs: second text of each row, such as the hypothesis of a premise or the context of a question; None for
            single texts.
          max_length: number of tokens to which rows are cut, the longer text of a pair first; None cuts nothing.

        Returns:
          `tokens` [B, T] int32; `segments` [B, T] int32, 1 in second texts; `valid` [B, T] booleans, false on padding.

        Raises:
          UserError: if an argument is not text, or a row is longer than the model can read.
        """
        from bert_jax.data import text_batch  # which needs this module

        return text_batch.make(self, texts, pairs, max_length)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f'{type(self).__name__}(kind={self.kind!r}, size={len(self)}, lowercase={self.lowercase})'

    @property
    def kind(self) -> Literal['wordpiece', 'bpe', 'unigram']:
        return _KINDS[type(self.backend.model)]

    @property
    def lowercase(self) -> bool:
        """Whether texts are lowercased."""
        normalizer = self.backend.normalizer
        return normalizer is not None and normalizer.normalize_str('A') == 'a'

    @property
    def is_byte_level(self) -> bool:
        """Whether this is a byte-level BPE, which writes each byte of a text as a character."""
        return self.kind == 'bpe' and not _is_sentencepiece(self.backend)

    def encode(self, texts: Sequence[str], parse_special: bool = False) -> list[np.ndarray]:
        """Encode texts without adding [CLS] and [SEP].

        Args:
          texts: any strings.
          parse_special: whether '[MASK]' in a text means the special token rather than these characters.

        Returns:
          The token ids of each text, [n] int32.
        """
        self.backend.encode_special_tokens = not parse_special
        encoded = _encode_in_parts(self.backend.encode_batch_fast, texts)
        return [np.array(e.ids, np.int32) for e in encoded]

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """Encode the words of a text that is already split into words.

        Except in WordPiece, the space before a word is part of its first token, so each word gets one, as with
        `add_prefix_space=True` in transformers.

        Returns:
          The token ids of each word, [n] int32.
        """
        if self.kind != 'wordpiece':
            words = [word if word.startswith(' ') else f' {word}' for word in words]
        return self.encode(words)

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Encode texts and locate each token in its text.

        Returns:
          For each text the token ids [n], and the start and end of each token in characters [n, 2].
        """
        self.backend.encode_special_tokens = True
        encoded = _encode_in_parts(self.backend.encode_batch, texts)
        return [(np.array(e.ids, np.int32), np.array(e.offsets, np.int32).reshape(-1, 2)) for e in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids to text without special tokens."""
        return self.backend.decode(list(map(int, ids)))

    def token(self, index: int) -> str:
        """Return the string of the token with the id `index`; that of [UNK] if no entry has the id.

        Raises:
          UserError: if the id is beyond the vocabulary.
        """
        if not 0 <= index < len(self):
            raise UserError(f'The token id {index} does not exist. Pass an id from 0 to {len(self) - 1}.')
        return self.backend.id_to_token(int(index)) or '[UNK]'

    @functools.cached_property
    def continues_word(self) -> np.ndarray:
        """[V] booleans: whether an entry continues the word of the token before it.

        Words are split at spaces and, in WordPiece, at punctuation. Byte-level BPE writes a leading space as 'Ġ', and
        SentencePiece as '▁', so there punctuation belongs to the word before it.
        """
        vocab = self.backend.get_vocab()
        spaces = 'ĠĊ' if self.is_byte_level else '▁\n'
        flags = np.zeros(len(self), bool)
        for token, index in vocab.items():
            if token not in self.special_tokens:
                flags[index] = token.startswith('##') if self.kind == 'wordpiece' else token[0] not in spaces
        return flags

    @functools.cached_property
    def ends_sentence(self) -> np.ndarray:
        """[V] booleans: whether an entry ends a sentence."""
        flags = np.zeros(len(self), bool)
        for index in self.backend.get_vocab().values():
            flags[index] = bool(_SENTENCE_END.search(self.backend.decode([index])))
        return flags

    @functools.cached_property
    def ordinary_ids(self) -> np.ndarray:
        """Ids of all tokens that are not special, for example to sample random replacements."""
        vocab = self.backend.get_vocab()
        special = [vocab[token] for token in self.special_tokens]
        return np.setdiff1d(np.array([*vocab.values()], np.int32), special)

    def to_json(self) -> str:
        """Serialize to the text of a `tokenizer.json`."""
        return self.backend.to_str(pretty=False)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the tokenizer, 16 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def save(self, path: pathlib.Path) -> None:
        """Write the tokenizer to the file `path` in the format of a `tokenizer.json`."""
        path.write_text(self.to_json(), encoding='utf-8')


def _encode_in_parts(encode: Callable[..., list[Any]], texts: Sequence[str]) -> Iterator[Any]:
    """Encode texts a thousand at a time: the encoding of a short text takes kilobytes."""
    for start in range(0, len(texts), 1000):
        yield from encode(texts[start : start + 1000], add_special_tokens=False)


def _find_sentinels(vocab: Mapping[str, int]) -> tuple[int, ...]:
    """Return the ids of the tokens '<extra_id_0>', '<extra_id_1>', ...; those of mT5 begin with a space."""
    ids = (vocab.get(f'<extra_id_{i}>', vocab.get(f'▁<extra_id_{i}>')) for i in itertools.count())
    return tuple(i for i in itertools.takewhile(lambda i: i is not None, ids) if i is not None)


def from_json(text: str) -> Tokenizer:
    """Make a tokenizer from the text of a `tokenizer.json`."""
    return Tokenizer(tokenizers.Tokenizer.from_str(text))


def load(path: str | pathlib.Path) -> Tokenizer:
    """Load a `vocab.txt`, a `merges.txt`, a `tokenizer.json`, a SentencePiece model, or a folder with one of these.

    The settings files next to it (`tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`) are read as
    transformers reads them. With a `vocab.txt` but no `tokenizer_config.json`, texts are lowercased if no entry has an
    uppercase letter.

    Raises:
      UserError: if there is no tokenizer, it cannot be read, or it is none of WordPiece, byte-level BPE and SentencePiece.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        found = [
            p for name in (FILE, 'vocab.txt', *_MERGES, *sentencepiece.FILES) if (p := path / name).is_file()
        ]
        if not found:
            raise UserError(
                f'The folder {str(path)!r} contains no {FILE}, vocab.txt, merges.txt or SentencePiece model. '
                'Set tokenizer.path to another folder or file.'
            )
        path = found[0]
    hint = f'Set tokenizer.path to a vocab.txt or {FILE}.'
    if not path.is_file():
        raise UserError(f'There is no tokenizer at {str(path)!r}. {hint}')
    if path.name in sentencepiece.FILES:
        backend, settings = sentencepiece.load_backend(path)
        return _finish(Tokenizer(backend), settings, path)
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as e:
        raise UserError(f'{str(path)!r} is not UTF-8 text. {hint}') from e
    merges = next((name for name in _MERGES if path.name.endswith(name)), None)
    if merges:
        settings = tokenizer_settings.read(path.parent)
        tokenizer = _load_merges(path, merges, text, settings)
    elif path.suffix == '.txt':
        settings = tokenizer_settings.read(path.parent)
        tokenizer = from_vocab(text.rstrip('\n').split('\n'), settings)
    else:
        tokenizer, settings = _load_json(path, text)
    return _finish(tokenizer, settings, path)


def _finish(tokenizer: Tokenizer, settings: tokenizer_settings.Settings, path: pathlib.Path) -> Tokenizer:
    """Check the special tokens of a tokenizer that was read from `path`, and note the path."""
    tokenizer_checks.check_special_tokens(tokenizer, settings, path)
    tokenizer.source = str(path)
    return tokenizer


def _load_merges(
    path: pathlib.Path, name: str, text: str, settings: tokenizer_settings.Settings
) -> Tokenizer:
    """Make a tokenizer from the text of a file of merges that ends in `name`, and the vocabulary next to it."""
    vocab_file = path.with_name(path.name.removesuffix(name) + _MERGES[name])
    vocab = tokenizer_settings.read_json(vocab_file)
    if vocab is None:
        raise UserError(
            f'{str(path)!r} holds BPE merges, but their vocabulary {str(vocab_file)!r} is missing. '
            'Put it in the same folder.'
        )
    lines = [line.split(' ') for line in text.split('\n') if line and not line.startswith('#version')]
    return from_merges(vocab, lines, settings)


def _load_json(path: pathlib.Path, text: str) -> tuple[Tokenizer, tokenizer_settings.Settings]:
    """Make a tokenizer from the text of a `tokenizer.json` and the settings files next to it."""
    try:
        contents = json.loads(text)
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as e:  # the library raises bare Exception
        raise UserError(
            f'{str(path)!r} is not a valid tokenizer.json ({e}). Set tokenizer.path to another file.'
        ) from e
    model = contents['model']
    is_byte_level = 'ByteLevel' in json.dumps(contents.get('pre_tokenizer'))
    if not (isinstance(backend.model, models.WordPiece) or is_byte_level or _is_sentencepiece(backend)):
        raise UserError(
            f'{str(path)!r} is a {type(backend.model).__name__} tokenizer, but only WordPiece, byte-level BPE and '
            'SentencePiece are supported. Set tokenizer.path to another tokenizer.'
        )
    settings = tokenizer_settings.read(path.parent, contents.get('added_tokens', ()))
    kinds = {'wordpiece': models.WordPiece, 'bpe': models.BPE}
    if not isinstance(backend.model, kinds.get(settings.kind, models.Model)):
        raise UserError(
            f'{str(path)!r} is a {type(backend.model).__name__} tokenizer, but tokenizer_config.json names the class '
            f'{settings.class_name}. Correct tokenizer_class.'
        )
    if settings.kind == 'wordpiece':
        return from_vocab(model['vocab'], settings), settings
    if settings.kind == 'bpe':
        merges = [merge.split(' ') if isinstance(merge, str) else merge for merge in model['merges']]
        return from_merges(model['vocab'], merges, settings), settings
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_tokens([token for token in settings.added if token.content not in known])
    tokenizer = Tokenizer(backend)
    if backend.post_processor and backend.num_special_tokens_to_add(is_pair=True):
        tokenizer_checks.check_pair_layout(tokenizer, path)
    return tokenizer, settings


def _is_sentencepiece(backend: tokenizers.Tokenizer) -> bool:
    """Return whether a Unigram or BPE model is one of SentencePiece (Kudo & Richardson 2018), which writes spaces as '▁'."""
    return backend.token_to_id('▁') is not None


def from_vocab(
    entries: Sequence[str] | Mapping[str, int],
    settings: tokenizer_settings.Settings = tokenizer_settings.NONE,
) -> Tokenizer:
    """Make a WordPiece tokenizer from a published vocabulary.

    Args:
      entries: the lines of a `vocab.txt`, whose numbers are the ids; or the ids by entry.
      settings: settings files next to the vocabulary. `do_lower_case` defaults to true if they name a class of transformers
        or no entry has an uppercase letter. `strip_accents` defaults to the value of `do_lower_case`.
    """
    vocab = dict(entries) if isinstance(entries, Mapping) else {entry: i for i, entry in enumerate(entries)}
    is_cased = any(e != e.lower() for e in vocab if not (e.startswith('[') and e.endswith(']')))
    normalizer = {NORMALIZER[k]: v for k, v in settings.values.items() if k in NORMALIZER and v is not None}
    is_lowercase = bool(settings.class_name) or not is_cased
    family = 'mpnet' if settings.class_name == 'MPNetTokenizer' else 'bert'
    backend = wordpiece_backend(vocab, _FAMILIES[family], **{'lowercase': is_lowercase, **normalizer})
    backend.add_tokens(settings.added)
    if family == 'mpnet':
        # Offsets exclude the space before a mask token.
        backend.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    return Tokenizer(backend)


def from_words(text: str) -> Tokenizer:
    """Make a tokenizer for demonstrations: each word or punctuation mark of a text is one token."""
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)
    entries = dict.fromkeys([*SPECIAL, *(word for word, _ in split)])
    return Tokenizer(wordpiece_backend({entry: i for i, entry in enumerate(entries)}, lowercase=False))


def from_merges(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    settings: tokenizer_settings.Settings = tokenizer_settings.NONE,
) -> Tokenizer:
    """Make a byte-level BPE tokenizer (Radford et al. 2019, section 2.2) from its published files.

    Args:
      vocab: ids by entry.
      merges: pairs of entries, by descending priority.
      settings: settings files next to the vocabulary. With `add_prefix_space`, a space is put in front of every text. The
        offsets of the classes of RoBERTa and BART leave out spaces.
    """
    if invalid := next((line for line in merges if len(line) != 2), None):
        raise UserError(
            f'The line {" ".join(invalid)!r} of the BPE merges is invalid. '
            'Write two entries separated by a space on each line.'
        )
    try:
        model = models.BPE(dict(vocab), [(a, b) for a, b in merges])
    except Exception as e:  # the library raises bare Exception
        raise UserError(
            f'The BPE vocabulary does not match the merges ({e}). Use two files of the same tokenizer.'
        ) from e
    backend = byte_level_backend(model, bool(settings.values.get('add_prefix_space')))
    known = dict.fromkeys(itertools.chain(*_FAMILIES.values()))
    backend.add_special_tokens([t for t in known if t in vocab])
    if not settings.class_name:
        backend.add_special_tokens([mask_after_space(t) for t in ('[MASK]', '<mask>') if t in vocab])
    backend.add_tokens(settings.added)
    if settings.class_name in ('RobertaTokenizer', 'BartTokenizer'):
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return Tokenizer(backend)


def mask_after_space(token: str) -> tokenizers.AddedToken:
    """Make a mask token that includes the space before it in a text, like the word that it stands for."""
    return tokenizers.AddedToken(token, lstrip=True, special=True)


def byte_level_backend(model: models.BPE, add_prefix_space: bool = False) -> tokenizers.Tokenizer:
    """Make a tokenizer that splits texts into words and bytes as GPT-2 does."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    return backend


def wordpiece_backend(
    vocab: dict[str, int], special: Sequence[str] = SPECIAL, **normalizer: bool
) -> tokenizers.Tokenizer:
    """Make a WordPiece tokenizer that cleans texts and splits them into words as BERT does.

    Words are split at spaces, punctuation and CJK characters.

    Args:
      vocab: ids by entry.
      special: special tokens, of which those in the vocabulary are read as such.
      **normalizer: options of `BertNormalizer`, such as `lowercase`.
    """
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token='[UNK]', max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(**normalizer)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    tokens = [mask_after_space(t) if t == '<mask>' else t for t in special]
    backend.add_special_tokens([t for t, text in zip(tokens, special, strict=True) if text in vocab])
    return backend
