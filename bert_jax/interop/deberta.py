"""Table of DeBERTa v3 (He et al. 2023, arXiv 2111.09543) and mDeBERTa: an encoder with disentangled attention."""

from collections.abc import Mapping
from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.interop.bert_names import BERT_MODULES, CLASSIFIER, COMMON_HEADS, CONFIG_KEYS
from bert_jax.interop.family import Family, block_modules

# Settings that transformers takes from config.json, but whose defaults its class does not list.
_UNLISTED = {'position_buckets': -1, 'share_att_key': False, 'norm_rel_ebd': 'none', 'conv_kernel_size': 0}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the keys that others imply, and sort the kinds of attention to relative positions."""
    flat = {**_UNLISTED, **config}
    kinds = flat.get('pos_att_type') or ()
    kinds = kinds.lower().split('|') if isinstance(kinds, str) else kinds
    flat['pos_att_type'] = sorted((kind.strip() for kind in kinds), reverse=True)
    if flat.get('max_relative_positions', -1) < 1:
        flat['max_relative_positions'] = flat.get(
            'max_position_embeddings', _DEFAULTS['max_position_embeddings']
        )
    if flat['position_buckets'] < 1:
        raise UserError(
            'config.json sets no position_buckets, but only relative positions in buckets can be converted.'
        )
    width = flat.get('hidden_size', _DEFAULTS['hidden_size'])
    for key in ('embedding_size', 'pooler_hidden_size'):
        flat.setdefault(key, width)
    return flat


def nest(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings that only models of this type have, and -1 where the published files do."""
    nested = {**config, **_REQUIRED}
    if nested['max_relative_positions'] == nested['max_position_embeddings']:
        nested['max_relative_positions'] = -1
    return nested


_REQUIRED = {
    'relative_attention': True,
    'position_biased_input': False,
    'pos_att_type': ['p2c', 'c2p'],
    'share_att_key': True,
    'norm_rel_ebd': 'layer_norm',
    'conv_kernel_size': 0,
    'pooler_hidden_act': 'gelu',
}
_DEFAULTS = {
    'hidden_size': 1536,
    'num_attention_heads': 24,
    'intermediate_size': 6144,
    'num_hidden_layers': 24,
    'hidden_act': 'gelu',
    'hidden_dropout_prob': 0.1,
    'attention_probs_dropout_prob': 0.1,
    'max_position_embeddings': 512,
    'type_vocab_size': 0,
    'vocab_size': 128100,
    'layer_norm_eps': 1e-7,
    'initializer_range': 0.02,
    'relative_attention': False,
    'position_biased_input': True,
    'pooler_hidden_act': 'gelu',
}
FAMILY = Family(
    prefix='deberta.',
    model='bert',
    base_modules={
        **{
            ours: theirs
            for ours, theirs in BERT_MODULES.items()
            if ours not in ('position_embedding', 'pooler')
        },
        'layers/relative_embedding': 'encoder.rel_embeddings',
        'layers/relative_embedding/norm': 'encoder.LayerNorm',
        **block_modules(
            'encoder.layer.{}.',
            qkv=('attention.self.query_proj', 'attention.self.key_proj', 'attention.self.value_proj'),
        ),
    },
    # The masked-LM head of transformers is not the one with which the models were trained.
    head_modules={
        **COMMON_HEADS,
        **dict.fromkeys(('classify', 'regress', 'choice'), CLASSIFIER | {'bert/pooler': 'pooler.dense'}),
    },
    tied={},
    config_keys=CONFIG_KEYS
    | {
        'disentangled_buckets': 'position_buckets',
        'relative_max_distance': 'max_relative_positions',
    },
    defaults=_DEFAULTS,
    fixed_config={'pooler_activation': 'gelu'},
    required_config=_REQUIRED,
    equal_config={'embedding_size': 'hidden_size', 'pooler_hidden_size': 'hidden_size'},
    dropout_keys={'pooler_dropout': 0.0, 'cls_dropout': 'hidden_dropout_prob'},
    class_prefix='DebertaV2',
    flatten=flatten,
    nest=nest,
)
