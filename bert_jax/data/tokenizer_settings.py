"""Settings of published tokenizers.

Reads the files that transformers saves with a vocabulary, such as `tokenizer_config.json`, and interprets them as
transformers does.
"""

import pathlib
import types
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tokenizers import AddedToken

from bert_jax.core import paths
from bert_jax.core.errors import UserError, first_line

# Classes of transformers and how they split text. They take only the vocabulary and the merges of a tokenizer.json and
# everything else from tokenizer_config.json; generic classes take the tokenizer.json as it is.
_CLASSES = {
    'BertTokenizer': 'wordpiece',
    'DistilBertTokenizer': 'wordpiece',
    'ElectraTokenizer': 'wordpiece',
    'MobileBertTokenizer': 'wordpiece',
    'ConvBertTokenizer': 'wordpiece',
    'MPNetTokenizer': 'wordpiece',
    'RobertaTokenizer': 'bpe',
    'BartTokenizer': 'bpe',
    'GPT2Tokenizer': 'bpe',
    'XLMRobertaTokenizer': 'generic',
    'AlbertTokenizer': 'generic',
    'GemmaTokenizer': 'generic',
    'T5Tokenizer': 'generic',
    'DebertaV2Tokenizer': 'generic',
    'PreTrainedTokenizer': 'generic',
    'TokenizersBackend': 'generic',
}
# Classes by the model type in config.json, for a tokenizer_config.json that names none.
_MODEL_TYPES = {
    'bert': 'BertTokenizer',
    'distilbert': 'BertTokenizer',
    'electra': 'BertTokenizer',
    'nomic_bert': 'BertTokenizer',
    'mpnet': 'MPNetTokenizer',
    'albert': 'AlbertTokenizer',
    'mobilebert': 'BertTokenizer',
    'convbert': 'BertTokenizer',
    'roberta': 'RobertaTokenizer',
    'bart': 'RobertaTokenizer',
    'gpt2': 'GPT2Tokenizer',
    'xlm-roberta': 'XLMRobertaTokenizer',
    't5': 'T5Tokenizer',
    'mt5': 'T5Tokenizer',
    'deberta-v2': 'DebertaV2Tokenizer',
}
_SPECIAL_TOKENS = ('bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token')


class Settings(NamedTuple):
    """Settings of a published tokenizer.

    Attributes:
      class_name: class of transformers without 'Fast'. Empty if there is no `tokenizer_config.json`: the defaults of a
        class, such as lowercasing, could contradict the vocabulary.
      kind: how the class splits text: 'wordpiece', 'bpe', or 'generic' for what its tokenizer.json says.
      values: contents of `tokenizer_config.json` and, if that lists no added tokens, of `special_tokens_map.json`.
      added: added tokens in the order of their ids, then special tokens; those that a vocabulary has keep their ids.
    """

    class_name: str
    kind: str
    values: Mapping[str, Any]
    added: list[AddedToken]


NONE = Settings('', 'generic', types.MappingProxyType({}), [])  # of a folder without settings


def read(folder: pathlib.Path, added_tokens: Iterable[Mapping[str, Any]] = ()) -> Settings:
    """Read the settings in a folder, which need not have any.

    Args:
      folder: folder of the tokenizer.
      added_tokens: added tokens that its `tokenizer.json` lists, used if the settings list none.

    Raises:
      UserError: if the tokenizer needs code that is not here, or a file is damaged.
    """
    try:
        return _read(folder, added_tokens)
    except (TypeError, ValueError, AttributeError, KeyError) as e:
        raise UserError(
            f'A settings file of the tokenizer in {str(folder)!r} has an invalid value ({first_line(e)}). '
            'Correct or delete it.'
        ) from e


def _read(folder: pathlib.Path, added_tokens: Iterable[Mapping[str, Any]]) -> Settings:
    values = read_json(folder / 'tokenizer_config.json') or {}
    model = read_json(folder / 'config.json') or {}
    named = values.get('tokenizer_class') or model.get('tokenizer_class')
    name = (named or _MODEL_TYPES.get(model.get('model_type', ''), '')).removesuffix('Fast')
    if 'AutoTokenizer' in (values.get('auto_map') or {}):
        raise UserError(
            f'The tokenizer in {str(folder)!r} needs its own code ({values["auto_map"]["AutoTokenizer"]}), which is not '
            'run. Use a tokenizer of a class in transformers.'
        )
    if name and name not in _CLASSES:
        raise UserError(
            f'The tokenizer in {str(folder)!r} is a {name}, which is not supported. Supported are '
            f'{", ".join(sorted(_CLASSES))}.'
        )
    name = name if values else ''
    added: dict[int, AddedToken] = {}
    if 'added_tokens_decoder' in values:
        added = {int(i): _added_token(token) for i, token in values['added_tokens_decoder'].items()}
    else:
        values = {**values, **(read_json(folder / 'special_tokens_map.json') or {})}
        special = {content(values[key]) for key in _SPECIAL_TOKENS if values.get(key)}
        for text, i in (read_json(folder / 'added_tokens.json') or {}).items():
            is_special = text in special
            added[int(i)] = AddedToken(text, normalized=not is_special, special=is_special)
        for token in added_tokens:
            added[int(token['id'])] = _added_token(token)
    return Settings(name, _CLASSES.get(name, 'generic'), values, _in_order(added, values))


def class_of_model(folder: pathlib.Path) -> str:
    """Return the class of transformers for the model type in the `config.json` of a folder; '' without one."""
    return _MODEL_TYPES.get((read_json(folder / 'config.json') or {}).get('model_type', ''), '')


def _in_order(added: Mapping[int, AddedToken], values: Mapping[str, Any]) -> list[AddedToken]:
    """Return the added tokens by id, then the named and the extra special tokens that are not among them."""
    known = {token.content for token in added.values()}
    extra = values.get('extra_special_tokens') or values.get('additional_special_tokens') or ()
    named = [values[key] for key in _SPECIAL_TOKENS if values.get(key)]
    tokens = [added[i] for i in sorted(added)]
    names = {content(token) for token in named}
    for token in tokens:
        token.special = token.special or token.content in names
    for value in (*named, *(extra.values() if isinstance(extra, dict) else extra)):
        if content(value) not in known:
            token = _added_token(value)
            token.special = True
            known.add(token.content)
            tokens.append(token)
    return tokens


def content(value: Any) -> str:
    """Return the text of a special token from a settings file, where it is a string or a dict."""
    return value['content'] if isinstance(value, dict) else value


def _added_token(value: Any) -> AddedToken:
    """Make an added token from its entry in a settings file, which is a string or a dict."""
    if isinstance(value, str):
        return AddedToken(value, special=True)
    flags = ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')
    return AddedToken(value['content'], **{flag: value[flag] for flag in flags if flag in value})


def read_json(file: pathlib.Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None if it does not exist."""
    try:
        return paths.read_json(file)
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise UserError(f'{str(file)!r} is not valid JSON ({first_line(e)}). Correct or delete it.') from e
