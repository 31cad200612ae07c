"""Folders of sentence-transformers: a transformer, the pooling of its hidden states, a dense layer, and a normalization."""

import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core.errors import UserError, first_line
from bert_jax.interop import files
from bert_jax.modeling.sentence_vectors import Activation, Pooling

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
# Names of the prompts of queries and of passages; the first one counts.
_PROMPTS = (('query',), ('document', 'passage', 'corpus'))
_ACTIVATIONS: Mapping[str, Activation] = {
    'torch.nn.modules.linear.Identity': 'identity',
    'torch.nn.modules.activation.Tanh': 'tanh',
}


class Layer(NamedTuple):
    """A dense layer on the vectors.

    Attributes:
      kernel: [width of the transformer, width of the vectors].
      bias: [width of the vectors].
      activation: name of the activation.
    """

    kernel: np.ndarray
    bias: np.ndarray
    activation: Activation


class Parts(NamedTuple):
    """How a model of sentence-transformers maps texts to vectors.

    Attributes:
      folder: folder of the transformer.
      pooling: the pooling.
      length: maximum number of tokens of a text, 0 if unknown.
      dense: the dense layer, or None.
      prompts: text that precedes queries, and text that precedes passages; empty if both have none.
      lowercase: whether texts are lowercased, whatever the tokenizer does.
    """

    folder: pathlib.Path
    pooling: Pooling
    length: int
    dense: Layer | None
    prompts: tuple[str, ...] = ()
    lowercase: bool = False


def read_parts(folder: pathlib.Path) -> Parts | None:
    """Read how a model of sentence-transformers maps texts to vectors.

    Args:
      folder: its folder.

    Returns:
      The parts; None if the folder is not one of sentence-transformers.

    Raises:
      UserError: if the model has other parts than a transformer, a pooling, a dense layer and a normalization.
    """
    if not (folder / 'modules.json').is_file():
        return None
    try:
        return _read_parts(folder)
    except (TypeError, ValueError, AttributeError, KeyError) as e:
        raise UserError(
            f'A settings file of the embedding model in {str(folder)!r} has an invalid value ({first_line(e)}). '
            'Download the model again.'
        ) from e


def _read_parts(folder: pathlib.Path) -> Parts:
    modules = _read(folder / 'modules.json')
    kinds = [str(module.get('type', '')).rpartition('.')[2] for module in modules]
    readable = ['Transformer', 'Pooling', 'Dense', 'Normalize']
    if kinds[:2] != readable[:2] or kinds != [kind for kind in readable if kind in kinds]:
        raise UserError(
            f'{str(folder)!r} consists of {", ".join(kinds)}, but only a Transformer, a Pooling, perhaps one Dense, and perhaps '
            'a Normalize can be converted. Use another model.'
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
    read = [_read(path) for path in sorted(transformer.glob('sentence_*_config.json'))]
    lowercase = any(config.get('do_lower_case') for config in read)
    if (
        path := transformer / 'tokenizer_config.json'
    ).is_file():  # version 6 keeps the length in the tokenizer
        read.append(_read(path))
    sizes = [
        size for config in read for key in ('max_seq_length', 'model_max_length') if (size := config.get(key))
    ]
    dense = _read_dense(folder / modules[2].get('path', '')) if 'Dense' in kinds else None
    path = folder / 'config_sentence_transformers.json'
    use = _read(path) if path.is_file() else {}
    prompts = _read_prompts(use)
    if prompts and not settings.get('include_prompt', True):
        raise UserError(
            f'{str(folder)!r} leaves the tokens of prompts out of its vectors, which cannot be converted. Use another model.'
        )
    if cut := use.get('truncate_dim'):
        logging.warning('the model cuts its vectors to their first %s values, but bert_jax does not', cut)
    if 'Normalize' not in kinds and (similarity := use.get('similarity_fn_name') or 'cosine') != 'cosine':
        logging.warning('the model compares texts by %r, but bert_jax by the cosine', similarity)
    return Parts(
        transformer, _POOLINGS[modes[0]], int(min(sizes, default=0)), dense, prompts, bool(lowercase)
    )


def _read_prompts(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the prompts of queries and passages from the contents of `config_sentence_transformers.json`."""
    prompts = config.get('prompts') or {}
    if default := prompts.get(config.get('default_prompt_name'), ''):
        logging.warning('the model has the default prompt %r; pass it as `prompt` to encode', default)
    found = tuple(next((prompts[n] for n in names if n in prompts), default) for names in _PROMPTS)
    others = [f'{name}: {prompt!r}' for name, prompt in prompts.items() if prompt and prompt not in found]
    if others:
        logging.warning(
            'the model has other prompts than those of queries and passages (%s); pass one as `prompt` to encode',
            ', '.join(others),
        )
    return found if any(found) else ()


def _read_dense(folder: pathlib.Path) -> Layer:
    settings, tensors = _read(folder / 'config.json'), files.read_tensors(folder)
    activation = settings.get('activation_function')
    if activation not in _ACTIVATIONS or 'linear.weight' not in tensors:
        raise UserError(
            f'{str(folder)!r} has the activation {activation!r} and the tensors {", ".join(tensors)}, but only a linear layer with '
            f'{" or ".join(_ACTIVATIONS)} can be converted. Use another model.'
        )
    kernel = tensors['linear.weight'].astype(np.float32).T
    bias = tensors.get('linear.bias', np.zeros(kernel.shape[1])).astype(np.float32)
    return Layer(kernel, bias, _ACTIVATIONS[activation])


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f'{str(path)!r} cannot be read ({first_line(e)}). Download the model again.') from e


def make_files(
    pooling: Pooling, width: int, length: int, dense: Layer | None = None, prompts: Sequence[str] = ()
) -> dict[str, Any]:
    """Make the JSON files, by path, that turn the folder of a transformer into a model of sentence-transformers.

    Args:
      pooling: pooling of the hidden states.
      width: width of the transformer.
      length: maximum number of tokens of a text.
      dense: dense layer, whose tensors `dense_tensors` returns.
      prompts: text that precedes queries, and text that precedes passages; empty for none.

    Raises:
      UserError: for the pooling 'tokens', which the library does not have.
    """
    if pooling not in _POOLINGS.values():
        raise UserError(
            f'sentence-transformers has no model with task.pooling={pooling}. Use the checkpoint with bert_jax.load_embedder.'
        )
    their_name = next(name for name, ours in _POOLINGS.items() if ours == pooling)
    prefix = 'sentence_transformers.models'
    kinds = [('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize')]
    extra: dict[str, Any] = {}
    if dense:
        kinds[2:] = [('2_Dense', 'Dense'), ('3_Normalize', 'Normalize')]
        extra['2_Dense/config.json'] = {
            'in_features': dense.kernel.shape[0],
            'out_features': dense.kernel.shape[1],
            'bias': True,
            'activation_function': next(k for k, v in _ACTIVATIONS.items() if v == dense.activation),
        }
    return {
        **extra,
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
        f'{kinds[-1][0]}/config.json': {},
        'sentence_bert_config.json': {'max_seq_length': length, 'do_lower_case': False},
        'config_sentence_transformers.json': {
            'similarity_fn_name': 'cosine',
            'prompts': {names[0]: prompt for names, prompt in zip(_PROMPTS, prompts, strict=False)},
            'default_prompt_name': None,
        },
    }


def dense_tensors(dense: Layer) -> dict[str, np.ndarray]:
    """Return the tensors of a dense layer, by the names of the library."""
    return {'linear.weight': np.ascontiguousarray(dense.kernel.T), 'linear.bias': dense.bias}
