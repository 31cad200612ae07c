"""Table of EuroBERT (Boizard et al. 2025, arXiv 2503.05500): an encoder with the blocks of Llama."""

from collections.abc import Mapping
from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.interop import decoders
from bert_jax.interop.family import Family

# Our poolings by the names in transformers and in the code that is published with the models.
_POOLING = {'late': 'late', 'mean': 'mean', 'bos': 'cls', 'cls': 'cls'}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `rope_parameters` by the base of the rotary positions, and fill in the keys that others imply.

    Raises:
      UserError: for scaled rotary positions or an unknown pooling.
    """
    flat = dict(config)
    rope = flat.pop('rope_parameters', None) or {}
    if flat.get('rope_scaling') or rope.get('rope_type', 'default') != 'default':
        raise UserError('config.json scales the rotary positions, which cannot be converted.')
    flat['rope_theta'] = rope.get('rope_theta', flat.get('rope_theta') or 10_000.0)
    heads = flat.get('num_attention_heads', _DEFAULTS['num_attention_heads'])
    if flat.get('num_key_value_heads') is None:
        flat['num_key_value_heads'] = heads
    if flat.get('head_dim') is None:
        flat['head_dim'] = flat.get('hidden_size', _DEFAULTS['hidden_size']) // heads
    pooling = flat.get('classifier_pooling', 'late')
    if pooling not in _POOLING:
        raise UserError(
            f'config.json sets classifier_pooling to {pooling!r}, but only {", ".join(_POOLING)} can be converted.'
        )
    return flat | {'classifier_pooling': _POOLING[pooling]}


def nest(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings that `flatten` reads."""
    pooling = {ours: theirs for theirs, ours in reversed(_POOLING.items())}
    return decoders.nest_llama(config) | {'classifier_pooling': pooling[config['classifier_pooling']]}


_DEFAULTS = {
    'hidden_size': 768,
    'num_attention_heads': 12,
    'intermediate_size': 3072,
    'num_hidden_layers': 12,
    'hidden_act': 'silu',
    'attention_dropout': 0.0,
    'max_position_embeddings': 8192,
    'vocab_size': 128256,
    'rms_norm_eps': 1e-5,
    'attention_bias': False,
    'mlp_bias': False,
    'initializer_range': 0.02,
    'tie_word_embeddings': False,
}
_POOLED = {'bert/pooler': 'dense', 'classifier': 'classifier'}
FAMILY = Family(
    prefix='model.',
    model='bert',
    base_modules=decoders.LLAMA_MODULES,
    head_modules={
        'encode': {},
        'mlm': {'masked_lm/output_embedding': 'lm_head.weight', 'masked_lm/bias': 'lm_head.bias'},
        'tag': {'classifier': 'classifier'},
        **dict.fromkeys(('classify', 'regress'), _POOLED),
    },
    tied={'lm_head.weight': 'bert/token_embedding'},
    config_keys=decoders.LLAMA_KEYS | {'pooling': 'classifier_pooling'},
    defaults=_DEFAULTS,
    fixed_config={
        'norm_placement': 'pre',
        'norm_kind': 'rms',
        'gated_mlp': True,
        'embedding_norm': False,
        'masked_lm_transform': False,
        'pooler_activation': 'gelu',
        'head_bias': True,
        'segments': 0,
        'dropout': 0.0,
    },
    equal_config={'mlp_bias': 'attention_bias'},
    class_prefix='EuroBert',
    flatten=flatten,
    nest=nest,
)
