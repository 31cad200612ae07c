"""Settings of NomicBERT (Nussbaum et al. 2024, arXiv 2402.01613) in its own `config.json` and in that of transformers."""

from collections.abc import Mapping
from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.interop import bert_names

DEFAULTS: dict[str, Any] = bert_names.DEFAULTS | {
    'hidden_act': 'silu',
    'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0,
    'max_position_embeddings': 2048,
    'vocab_size': 30528,
}
# Key in the published files, whose class derives from that of GPT-2, and its default there.
_PUBLISHED_KEYS = {
    'hidden_size': ('n_embd', 768),
    'num_attention_heads': ('n_head', 12),
    'intermediate_size': ('n_inner', None),  # 4 n_embd
    'num_hidden_layers': ('n_layer', 12),
    'hidden_act': ('activation_function', 'gelu_new'),
    'hidden_dropout_prob': ('resid_pdrop', 0.1),
    'attention_probs_dropout_prob': ('attn_pdrop', 0.1),
    'max_position_embeddings': ('n_positions', 1024),
    'layer_norm_eps': ('layer_norm_epsilon', 1e-5),
    'rope_theta': ('rotary_emb_base', 1000.0),
}
# For each other key that changes the model: its default, and the only value that can be converted.
_PUBLISHED_REQUIRED = {
    'qkv_proj_bias': (True, False),
    'mlp_fc1_bias': (True, False),
    'mlp_fc2_bias': (True, False),
    'prenorm': (False, False),
    'parallel_block': (False, False),
    'use_rms_norm': (False, False),
    'causal': (False, False),
    'rotary_emb_fraction': (0.0, 1.0),
    'rotary_emb_interleaved': (False, False),
    'rotary_emb_scale_base': (None, None),
    'rotary_scaling_factor': (None, None),
    'scale_attn_weights': (True, True),
    'scale_attn_by_inverse_layer_idx': (False, False),
}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the keys of the published files, or `rope_parameters`, by those that transformers has, and `rope_theta`.

    Raises:
      UserError: for a setting that our model does not have.
    """
    flat = dict(config)
    if 'n_embd' in flat:
        return _read_published(flat)
    rope = flat.pop('rope_parameters', None) or {}
    if rope.get('rope_type', 'default') != 'default':
        raise UserError(
            f'config.json scales the rotary positions ({rope["rope_type"]}), which cannot be converted.'
        )
    flat['rope_theta'] = rope.get('rope_theta', 1000.0)
    complete = DEFAULTS | flat
    width = complete['hidden_size'] // complete['num_attention_heads']
    if flat.pop('head_dim', None) not in (None, width):
        raise UserError(
            f'config.json sets head_dim to {config["head_dim"]}, but only {width} can be converted.'
        )
    return flat


def _read_published(config: Mapping[str, Any]) -> dict[str, Any]:
    for key, (default, required) in _PUBLISHED_REQUIRED.items():
        if (value := config.get(key, default)) != required:
            raise UserError(
                f'config.json sets {key} to {value!r}, but only {required!r} can be converted.'
                if key in config
                else f'config.json has no {key!r}. Only {required!r} can be converted.'
            )
    known = {theirs for theirs, _ in _PUBLISHED_KEYS.values()}
    flat = {key: value for key, value in config.items() if key not in known}
    flat |= {key: config.get(theirs, default) for key, (theirs, default) in _PUBLISHED_KEYS.items()}
    if flat['intermediate_size'] is None:
        flat['intermediate_size'] = 4 * flat['hidden_size']
    if flat['hidden_act'] != 'swiglu':
        raise UserError(
            f"config.json sets activation_function to {flat['hidden_act']!r}, but only 'swiglu' can be converted."
        )
    return flat | {'hidden_act': 'silu'}


def nest(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings that `flatten` reads in the form of transformers."""
    nested = dict(config)
    nested['rope_parameters'] = {'rope_type': 'default', 'rope_theta': nested.pop('rope_theta')}
    return nested | {'head_dim': nested['hidden_size'] // nested['num_attention_heads']}
