"""Folders of sentence-transformers: a transformer, the pooling of its hidden states, and a normalization."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.modeling.sentence_vectors import Pooling

# Our names of poolings, by those of the library and of its older versions.
_POOLINGS: Mapping[str, Pooling] = {
    'mean': 'mean',
    'cls': 'cls',
    'max': 'max',
    'lasttoken': 'last',
    'weightedmean': 'weighted',
}
_OLD_KEYS = {
    'pooling_mode_mean_tokens': 'mean',
    'pooling_mode_cls_token': 'cls',
    'pooling_mode_max_tokens': 'max',
    'pooling_mode_lasttoken': 'lasttoken',
    'pooling_mode_weightedmean_tokens': 'weightedmean',
}


def read_pooling(folder: pathlib.Path) -> tuple[pathlib.Path, Pooling, int] | None:
    """Read how a model of sentence-transformers maps texts to vectors.

    Args:
      folder: its folder.

    Returns:
      The folder of the transformer, the pooling, and the maximum number of tokens of a text, 0 if unknown; None if the
      folder is not one of sentence-transformers.

    Raises:
      UserError: if the model has other parts than a transformer, a pooling and a normalization.
    """
    if not (folder / 'modules.json').is_file():
        return None
    modules = _read(folder / 'modules.json')
    kinds = [str(module.get('type', '')).rpartition('.')[2] for module in modules]
    if kinds not in (['Transformer', 'Pooling'], ['Transformer', 'Pooling', 'Normalize']):
        raise UserError(
            f'{str(folder)!r} consists of {", ".join(kinds)}, but only a Transformer, a Pooling and a Normalize can be '
            'converted. Use another model.'
        )
    transformer, pooling = (folder / module.get('path', '') for module in modules[:2])
    settings = _read(pooling / 'config.json')
    found = settings.get('pooling_mode')
    modes = (
        [found]
        if isinstance(found, str)
        else found or [mode for key, mode in _OLD_KEYS.items() if settings.get(key)]
    )
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise UserError(
            f'{str(pooling / "config.json")!r} has the pooling {", ".join(map(str, modes)) or "none"}, but only one of '
            f'{", ".join(_POOLINGS)} can be converted. Use another model.'
        )
    # Version 6 keeps the length in the tokenizer.
    paths = [*sorted(transformer.glob('sentence_*_config.json')), transformer / 'tokenizer_config.json']
    read = [_read(path) for path in paths if path.is_file()]
    sizes = [
        size for config in read for key in ('max_seq_length', 'model_max_length') if (size := config.get(key))
    ]
    return transformer, _POOLINGS[modes[0]], int(min(sizes, default=0))


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError) as e:
        raise UserError(f'{str(path)!r} cannot be read ({e}). Download the model again.') from e


def make_files(pooling: Pooling, width: int, length: int) -> dict[str, Any]:
    """Make the JSON files, by path, that turn the folder of a transformer into a model of sentence-transformers.

    Args:
      pooling: pooling of the hidden states.
      width: width of the vectors.
      length: maximum number of tokens of a text.
    """
    their_name = next(name for name, ours in _POOLINGS.items() if ours == pooling)
    prefix = 'sentence_transformers.models'
    kinds = (('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize'))
    return {
        'modules.json': [
            {'idx': i, 'name': str(i), 'path': path, 'type': f'{prefix}.{kind}'}
            for i, (path, kind) in enumerate(kinds)
        ],
        '1_Pooling/config.json': {
            'word_embedding_dimension': width,
            **{key: mode == their_name for key, mode in _OLD_KEYS.items()},
            'pooling_mode_mean_sqrt_len_tokens': False,
            'include_prompt': True,
        },
        '2_Normalize/config.json': {},
        'sentence_bert_config.json': {'max_seq_length': length, 'do_lower_case': False},
        'config_sentence_transformers.json': {
            'similarity_fn_name': 'cosine',
            'prompts': {},
            'default_prompt_name': None,
        },
    }
