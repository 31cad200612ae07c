"""Settings of ModernBERT (Warner et al. 2024, arXiv 2412.13663) that differ between its layers, in old and new `config.json`."""

from collections.abc import Mapping
from typing import Any

from bert_jax.core.errors import UserError

_GLOBAL, _LOCAL = 'full_attention', 'sliding_attention'
_ROPE_BASES = {_GLOBAL: ('global_rope_theta', 160_000.0), _LOCAL: ('local_rope_theta', 10_000.0)}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `layer_types`, `rope_parameters` and `local_attention` by one key for each setting.

    Returns:
      The config with `global_attn_every_n_layers`, `global_rope_theta`, `local_rope_theta` and `sliding_window`, the largest
      distance at which a token attends to another in local layers; `local_attention` counts both sides.

    Raises:
      UserError: for a pattern of layers or an embedding of positions that our model does not have.
    """
    flat = dict(config)
    types, ropes = flat.pop('layer_types', None), flat.pop('rope_parameters', None) or {}
    every = flat.setdefault('global_attn_every_n_layers', 3)
    if types is not None:
        every = next((n for n in range(1, len(types) + 1) if types == _layer_types(n, len(types))), 0)
        if not every:
            raise UserError(
                f'config.json sets layer_types to {types}. Only full attention in every n-th layer, from the first layer '
                'on, can be converted.'
            )
        flat['global_attn_every_n_layers'] = every
    for kind, (key, default) in _ROPE_BASES.items():
        rope = ropes.get(kind) or {}
        if flat.get('rope_scaling') or rope.get('rope_type', 'default') != 'default':
            raise UserError(f'config.json scales the rotary positions of {kind}, which cannot be converted.')
        # In transformers, too, the new form takes precedence.
        flat[key] = rope.get('rope_theta', flat.get(key) or default)
    flat['sliding_window'] = flat.pop('local_attention', 128) // 2
    if flat['sliding_window'] < 1:
        raise UserError('config.json sets local_attention to less than 2, which cannot be converted.')
    return flat


def flatten_decoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """Do the same for a decoder, in whose local layers a token attends to one token less than half of `local_attention`."""
    flat = flatten(config)
    if flat['sliding_window'] < 2:
        raise UserError('config.json sets local_attention to less than 4, which cannot be converted.')
    return flat | {'sliding_window': flat['sliding_window'] - 1}


def nest(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings that `flatten` reads in the new form and, for older versions of transformers, in the old one."""
    nested = dict(config)
    if not nested['sliding_window']:  # all layers are global
        nested |= {'sliding_window': 64, 'global_attn_every_n_layers': 1}
    nested['local_rope_theta'] = nested['local_rope_theta'] or nested['global_rope_theta']
    nested['layer_types'] = _layer_types(nested['global_attn_every_n_layers'], nested['num_hidden_layers'])
    nested['local_attention'] = 2 * nested.pop('sliding_window')
    nested['rope_parameters'] = {
        kind: {'rope_type': 'default', 'rope_theta': nested[key]} for kind, (key, _) in _ROPE_BASES.items()
    }
    return nested


def nest_decoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write the settings that `flatten_decoder` reads."""
    window = config['sliding_window']
    return nest({**config, 'sliding_window': window and window + 1})


def _layer_types(every: int, layers: int) -> list[str]:
    return [_LOCAL if i % every else _GLOBAL for i in range(layers)]
