"""Tables of decoders with rotary positions: Llama and Qwen3, with RMS norms and gated layers, and StarCoder2, with neither."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.interop.family import Family, block_modules


def _flatten(config: Mapping[str, Any], kv_heads: int) -> dict[str, Any]:
    """Replace `rope_parameters` by the base of the rotary positions, and fill in the number of key and value heads.

    Args:
      config: a `config.json`.
      kv_heads: number of key and value heads if it names none; 0 for that of the query heads.

    Raises:
      UserError: for scaled or partial rotary positions.
    """
    flat = dict(config)
    rope = flat.pop('rope_parameters', None) or {}
    kind, share = rope.get('rope_type', 'default'), rope.get('partial_rotary_factor', 1.0)
    if flat.get('rope_scaling') or kind != 'default' or share != 1.0:
        raise UserError('config.json scales or shortens the rotary positions, which cannot be converted.')
    flat['rope_theta'] = rope.get('rope_theta', flat.get('rope_theta') or 10_000.0)
    if flat.get('num_key_value_heads') is None:
        flat['num_key_value_heads'] = kv_heads or flat.get('num_attention_heads', 32)
    return flat


def _flatten_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = _flatten(config, 0)
    if flat.get('head_dim') is None:
        flat['head_dim'] = flat.get('hidden_size', 4096) // flat.get('num_attention_heads', 32)
    return flat


def _flatten_qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = _flatten(config, 32)
    return flat | {'head_dim': flat.get('head_dim') or 128}


def _nest(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings that `_flatten` reads."""
    nested = dict(config)
    nested['num_key_value_heads'] = nested['num_key_value_heads'] or nested['num_attention_heads']
    nested['rope_parameters'] = {'rope_type': 'default', 'rope_theta': nested['rope_theta']}
    return nested


def nest_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings of Llama's blocks: those that `_flatten_llama` reads."""
    nested = _nest(config)
    return nested | {'head_dim': nested['head_dim'] or nested['hidden_size'] // nested['num_attention_heads']}


_CONFIG_KEYS = {
    'width': 'hidden_size',
    'heads': 'num_attention_heads',
    'kv_heads': 'num_key_value_heads',
    'mlp_width': 'intermediate_size',
    'layers': 'num_hidden_layers',
    'activation': 'hidden_act',
    'attention_dropout': 'attention_dropout',
    'max_positions': 'max_position_embeddings',
    'vocab_size': 'vocab_size',
    'init_std': 'initializer_range',
    'rope_base': 'rope_theta',
    'tied_embeddings': 'tie_word_embeddings',
}
_ATTENTION: dict[str, Any] = {
    'qkv': ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'),
    'q': 'self_attn.q_proj',
    'kv': ('self_attn.k_proj', 'self_attn.v_proj'),
    'out': 'self_attn.o_proj',
    'attention_norm': 'input_layernorm',
    'mlp_norm': 'post_attention_layernorm',
}
_EMBEDDING_AND_NORM = {'token_embedding': 'embed_tokens', 'layers/final_norm': 'norm'}
LLAMA_MODULES = {
    **_EMBEDDING_AND_NORM,
    **block_modules('layers.{}.', **_ATTENTION, up=('mlp.gate_proj', 'mlp.up_proj'), down='mlp.down_proj'),
}
LLAMA_KEYS = _CONFIG_KEYS | {
    'head_width': 'head_dim',
    'norm_eps': 'rms_norm_eps',
    'use_bias': 'attention_bias',
}
_HEADS = {'clm': {'output_embedding': 'lm_head.weight'}}
FAMILIES = {
    # Touvron et al. 2023, arXiv 2302.13971.
    'llama': Family(
        prefix='model.',
        model='gpt',
        base_modules=LLAMA_MODULES,
        head_modules=_HEADS,
        tied={'lm_head.weight': 'gpt/token_embedding'},
        config_keys=LLAMA_KEYS,
        defaults={
            'hidden_size': 4096,
            'num_attention_heads': 32,
            'intermediate_size': 11008,
            'num_hidden_layers': 32,
            'hidden_act': 'silu',
            'attention_dropout': 0.0,
            'max_position_embeddings': 2048,
            'vocab_size': 32000,
            'rms_norm_eps': 1e-6,
            'attention_bias': False,
            'mlp_bias': False,
            'initializer_range': 0.02,
            'tie_word_embeddings': False,
            'eos_token_id': 2,
        },
        fixed_config={'norm_placement': 'pre', 'norm_kind': 'rms', 'gated_mlp': True, 'dropout': 0.0},
        equal_config={'mlp_bias': 'attention_bias'},
        class_prefix='Llama',
        flatten=_flatten_llama,
        nest=nest_llama,
    ),
    # Lozhkov et al. 2024, arXiv 2402.19173.
    'starcoder2': Family(
        prefix='model.',
        model='gpt',
        base_modules={
            **_EMBEDDING_AND_NORM,
            **block_modules('layers.{}.', **_ATTENTION, up='mlp.c_fc', down='mlp.c_proj'),
        },
        head_modules=_HEADS,
        tied={'lm_head.weight': 'gpt/token_embedding'},
        config_keys=_CONFIG_KEYS
        | {'dropout': 'residual_dropout', 'norm_eps': 'norm_epsilon', 'use_bias': 'use_bias'},
        defaults={
            'hidden_size': 3072,
            'num_attention_heads': 24,
            'intermediate_size': 12288,
            'num_hidden_layers': 30,
            'hidden_act': 'gelu_pytorch_tanh',
            'attention_dropout': 0.0,
            'residual_dropout': 0.0,
            'max_position_embeddings': 4096,
            'vocab_size': 49152,
            'norm_epsilon': 1e-5,
            'use_bias': True,
            'initializer_range': 0.018042,
            'tie_word_embeddings': True,
            'eos_token_id': 50256,
        },
        fixed_config={'norm_placement': 'pre', 'norm_kind': 'layer', 'gated_mlp': False},
        required_config={'sliding_window': None},
        dropout_keys={'embedding_dropout': 'residual_dropout'},
        class_prefix='Starcoder2',
        flatten=functools.partial(_flatten, kv_heads=2),
        nest=_nest,
    ),
}
# Yang et al. 2025, arXiv 2505.09388: Llama with norms of queries and keys.
FAMILIES['qwen3'] = dataclasses.replace(
    FAMILIES['llama'],
    base_modules=LLAMA_MODULES | block_modules('layers.{}.self_attn.', q_norm='q_norm', k_norm='k_norm'),
    config_keys={ours: theirs for ours, theirs in LLAMA_KEYS.items() if ours != 'use_bias'},
    defaults={key: value for key, value in FAMILIES['llama'].defaults.items() if key != 'mlp_bias'}
    | {
        'intermediate_size': 22016,
        'max_position_embeddings': 32768,
        'vocab_size': 151936,
        'eos_token_id': None,
        'use_sliding_window': False,
    },
    fixed_config={**FAMILIES['llama'].fixed_config, 'use_bias': False, 'qk_norm': True},
    required_config={'attention_bias': False, 'use_sliding_window': False},
    equal_config={},
    class_prefix='Qwen3',
    flatten=_flatten_qwen3,
)
