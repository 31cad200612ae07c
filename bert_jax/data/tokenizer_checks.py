"""Check that a loaded tokenizer has the special tokens and the layout of rows that our models are trained with."""

import pathlib
import typing

from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer_settings import Settings, content

if typing.TYPE_CHECKING:
    from bert_jax.data.tokenizer import Tokenizer


def check_special_tokens(tokenizer: 'Tokenizer', settings: Settings, path: pathlib.Path) -> None:
    """Raise UserError if the settings name a different padding, [UNK], [CLS], [SEP] or mask token than `tokenizer`."""
    keys = ('pad_token', 'unk_token', 'cls_token', 'sep_token', 'mask_token')
    for key, token in zip(keys, tokenizer.special_tokens, strict=False):
        theirs = content(settings.values.get(key) or token)
        if theirs != token and tokenizer.family != 'gpt2':
            raise UserError(
                f'The settings files next to {str(path)!r} set {key} to {theirs!r}, but only {token!r} is supported. '
                'Set tokenizer.path to another tokenizer.'
            )


def check_pair_layout(tokenizer: 'Tokenizer', path: pathlib.Path) -> None:
    """Raise UserError if the post-processor of a tokenizer joins two texts differently than `rows.pack`."""
    a, b = tokenizer.encode(['a', 'b'])
    expected = [*tokenizer.prefix, *a, *tokenizer.separators, *b, tokenizer.sep]
    found = tokenizer.backend.encode('a', 'b')
    if found.ids != expected:
        raise UserError(
            f'{str(path)!r} joins two texts as {" ".join(found.tokens)!r}, but only '
            f'{" ".join(map(tokenizer.token, expected))!r} is supported. Set tokenizer.path to another tokenizer.'
        )
    first_length = len(tokenizer.prefix) + len(a) + 1
    segments = [0] * first_length + [1] * (len(expected) - first_length)
    if any(found.type_ids) and found.type_ids != segments:  # all are 0 for models without segments
        raise UserError(
            f'{str(path)!r} gives two texts the token type ids {found.type_ids}, but only {segments} are supported. '
            'Set tokenizer.path to another tokenizer.'
        )
