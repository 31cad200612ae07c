"""Tables of T5 (Raffel et al. 2020, arXiv 1910.10683) and mT5: encoder-decoders and encoders."""

from collections.abc import Mapping
from typing import Any

from bert_jax.interop.family import Family, block_modules

_ATTENTION: dict[str, Any] = {
    'qkv': tuple(f'layer.0.SelfAttention.{part}' for part in 'qkv'),
    'out': 'layer.0.SelfAttention.o',
    'attention_norm': 'layer.0.layer_norm',
}


def _side(side: str, ours: str, mlp: int, is_gated: bool, **cross: Any) -> dict[str, Any]:
    """Map the modules of the encoder or the decoder.

    Args:
      side: prefix of the Hugging Face modules.
      ours: prefix of our modules.
      mlp: number of the feed-forward sublayer.
      is_gated: whether feed-forward layers are gated.
      **cross: Hugging Face modules of cross-attention, as in `block_modules`.
    """
    mlp_layer = f'layer.{mlp}.DenseReluDense.'
    return {
        **block_modules(
            f'{side}block.{{}}.',
            ours,
            **_ATTENTION,
            **cross,
            up=(f'{mlp_layer}wi_0', f'{mlp_layer}wi_1') if is_gated else f'{mlp_layer}wi',
            down=f'{mlp_layer}wo',
            mlp_norm=f'layer.{mlp}.layer_norm',
        ),
        f'{ours}layers/final_norm': f'{side}final_layer_norm',
        f'{ours}layers/relative_bias': f'{side}block.0.layer.0.SelfAttention.relative_attention_bias',
    }


_CROSS_ATTENTION = {
    'cross_q': 'layer.1.EncDecAttention.q',
    'cross_kv': ('layer.1.EncDecAttention.k', 'layer.1.EncDecAttention.v'),
    'cross_out': 'layer.1.EncDecAttention.o',
    'cross_norm': 'layer.1.layer_norm',
}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace `feed_forward_proj` by an activation and whether it is gated, and the absent keys that others imply.

    As in transformers, 'gated-gelu' is the tanh approximation, and hidden states are scaled before the output embedding
    unless `tie_word_embeddings` is false; those of mT5 never are.
    """
    flat = dict(config)
    default = 'gated-gelu' if flat.get('model_type') == 'mt5' else 'relu'
    gate, _, activation = (flat.pop('feed_forward_proj', None) or default).rpartition('-')
    activation = 'gelu_new' if (gate, activation) == ('gated', 'gelu') else activation
    flat = {'dense_act_fn': activation, 'is_gated_act': gate == 'gated', **flat}
    flat.setdefault('scale_decoder_outputs', flat.get('tie_word_embeddings') is not False)
    if flat.get('model_type') == 'mt5':
        flat['scale_decoder_outputs'] = False
    if flat.get('num_decoder_layers') is None:
        layers = (_MT5_DEFAULTS if flat.get('model_type') == 'mt5' else _DEFAULTS)['num_layers']
        flat['num_decoder_layers'] = flat.get('num_hidden_layers', flat.get('num_layers', layers))
    if flat.get('decoder_start_token_id') is None:
        flat['decoder_start_token_id'] = flat.get('pad_token_id', 0)
    if is_encoder(flat) or (flat.get('architectures') or [''])[0].endswith(
        'Model'
    ):  # without an output embedding
        flat |= {'tie_word_embeddings': True, 'scale_decoder_outputs': False}
    return flat


def nest(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write `feed_forward_proj`, and the keys that transformers computes for its present and older versions."""
    nested = dict(config)
    activation = nested['dense_act_fn']
    if nested['is_gated_act']:
        nested['feed_forward_proj'] = 'gated-gelu' if activation == 'gelu_new' else f'gated-{activation}'
    else:
        nested['feed_forward_proj'] = activation
    return nested | {'is_encoder_decoder': 'num_decoder_layers' in nested}


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is that of a model without a decoder."""
    return (config.get('architectures') or [''])[0].endswith(('EncoderModel', 'ForTokenClassification'))


def _make(model_type: str, class_prefix: str, has_decoder: bool, is_gated: bool) -> Family:
    """Make the table of one of the models."""
    model = 'bart' if has_decoder else 'bert'
    embedding = f'{model}/token_embedding'
    if has_decoder:
        modules = {
            **_side('encoder.', 'encoder/', 1, is_gated),
            **_side('decoder.', 'decoder/', 2, is_gated, **_CROSS_ATTENTION),
        }
        heads: dict[str, Any] = {'denoise': {'output_embedding': 'lm_head.weight'}}
        tied: tuple[str, ...] = (
            'encoder.embed_tokens.weight',
            'decoder.embed_tokens.weight',
            'lm_head.weight',
        )
        fixed: dict[str, Any] = {'logits_bias': False}
    else:
        modules = _side('encoder.', '', 1, is_gated)
        heads = {'encode': {}, 'tag': {'classifier': 'classifier'}}
        tied = ('encoder.embed_tokens.weight', 'transformer.encoder.embed_tokens.weight')
        fixed = {'segments': 0, 'embedding_norm': False, 'pooling': 'mean'}
    return Family(
        prefix='' if has_decoder else 'transformer.',
        model=model,
        base_modules={'token_embedding': 'shared', **modules},
        head_modules=heads,
        tied=dict.fromkeys(tied, embedding),
        config_keys={
            'width': 'd_model',
            'heads': 'num_heads',
            'head_width': 'd_kv',
            'mlp_width': 'd_ff',
            'layers': 'num_layers',
            'activation': 'dense_act_fn',
            'gated_mlp': 'is_gated_act',
            'relative_buckets': 'relative_attention_num_buckets',
            'relative_max_distance': 'relative_attention_max_distance',
            'attention_dropout': 'dropout_rate',
            'dropout': 'dropout_rate',
            'vocab_size': 'vocab_size',
            'norm_eps': 'layer_norm_epsilon',
            **(_DECODER_KEYS if has_decoder else {}),
        },
        defaults=_DEFAULTS | (_MT5_DEFAULTS if model_type == 'mt5' else {}),
        aliases={
            'hidden_size': 'd_model',
            'num_attention_heads': 'num_heads',
            'num_hidden_layers': 'num_layers',
            'head_dim': 'd_kv',
        },
        fixed_config={
            'norm_placement': 'pre',
            'norm_kind': 'rms',
            'use_bias': False,
            'scale_attention': False,
            **fixed,
        },
        required_config={'is_decoder': False},
        dropout_keys={'classifier_dropout': 0.0 if has_decoder else 'dropout_rate'},
        class_prefix=class_prefix,
        flatten=flatten,
        nest=nest,
        variant=_choose_variant,
    )


_DECODER_KEYS = {
    'decoder_layers': 'num_decoder_layers',
    'tied_embeddings': 'tie_word_embeddings',
    'scale_logits': 'scale_decoder_outputs',
}
_DEFAULTS = {
    'd_model': 512,
    'num_heads': 8,
    'd_kv': 64,
    'd_ff': 2048,
    'num_layers': 6,
    'relative_attention_num_buckets': 32,
    'relative_attention_max_distance': 128,
    'dropout_rate': 0.1,
    'vocab_size': 32128,
    'layer_norm_epsilon': 1e-6,
    'tie_word_embeddings': True,
    'pad_token_id': 0,
    'eos_token_id': 1,
}
_MT5_DEFAULTS = {'d_ff': 1024, 'num_layers': 8, 'num_heads': 6, 'vocab_size': 250112}


def _choose_variant(config: Mapping[str, Any]) -> Family:
    """Return the table of a `config.json`: feed-forward layers with and without a gate have other tensors."""
    return _VARIANTS[config['model_type'], not is_encoder(config), flatten(config)['is_gated_act']]


# Tables by model type, whether there is a decoder, and whether feed-forward layers are gated.
_VARIANTS = {
    (model_type, has_decoder, is_gated): _make(model_type, class_prefix, has_decoder, is_gated)
    for model_type, class_prefix in (('t5', 'T5'), ('mt5', 'MT5'))
    for has_decoder in (True, False)
    for is_gated in (True, False)
}
FAMILIES = {'t5': _VARIANTS['t5', True, False], 'mt5': _VARIANTS['mt5', True, True]}
