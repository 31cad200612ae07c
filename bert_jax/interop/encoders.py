"""Tables of encoders that vary BERT's embeddings, positions or layers: ELECTRA, MPNet, NomicBERT and ALBERT; see `Family` for their fields."""

from collections.abc import Mapping
from typing import Any

from bert_jax.interop import nomic
from bert_jax.interop.bert_names import (
    BERT_MODULES,
    CLASSIFIER,
    COMMON_HEADS,
    CONFIG_KEYS,
    DEFAULTS,
    DROPOUT_KEYS,
    EMBEDDINGS,
    REQUIRED_CONFIG,
)
from bert_jax.interop.family import Family, block_modules


def _flatten_electra(config: Mapping[str, Any]) -> dict[str, Any]:
    """Set `embedding_size` to 0 where ELECTRA has no projection, which is where it equals `hidden_size`."""
    size, width = (config.get(key, _ELECTRA_DEFAULTS[key]) for key in ('embedding_size', 'hidden_size'))
    return {**config, 'embedding_size': 0 if size == width else size}


def _nest_electra(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, 'embedding_size': config['embedding_size'] or config['hidden_size']}


_ELECTRA_DEFAULTS = {
    **DEFAULTS,
    'embedding_size': 128,
    'hidden_size': 256,
    'num_attention_heads': 4,
    'intermediate_size': 1024,
}
_CLASSIFICATION_HEAD = {'bert/pooler': 'classifier.dense', 'classifier': 'classifier.out_proj'}
FAMILIES = {
    # Clark et al. 2020, arXiv 2003.10555. The pooled vector exists only in its classifiers.
    'electra': Family(
        prefix='electra.',
        model='bert',
        base_modules={
            **{ours: theirs for ours, theirs in BERT_MODULES.items() if ours != 'pooler'},
            'embedding_projection': 'embeddings_project',
        },
        head_modules={
            **COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'generator_predictions.dense',
                'masked_lm/norm': 'generator_predictions.LayerNorm',
                'masked_lm/bias': 'generator_lm_head.bias',
            },
            'classify': _CLASSIFICATION_HEAD,
            'regress': _CLASSIFICATION_HEAD,
            'choice': CLASSIFIER | {'bert/pooler': 'sequence_summary.summary'},
            'rtd': {
                'detector/dense': 'discriminator_predictions.dense',
                'detector/classifier': 'discriminator_predictions.dense_prediction',
            },
        },
        tied={'generator_lm_head.weight': 'bert/token_embedding'},
        config_keys=CONFIG_KEYS | {'embedding_width': 'embedding_size'},
        defaults=_ELECTRA_DEFAULTS,
        fixed_config={'pooler_activation': 'gelu'},
        architectures={'ForPreTraining': 'encode'},
        unread_tensors={'discriminator_predictions.': 'detects replaced tokens'},
        required_config=REQUIRED_CONFIG
        | {'summary_type': 'first', 'summary_use_proj': True, 'summary_activation': 'gelu'},
        dropout_keys=DROPOUT_KEYS | {'summary_last_dropout': 'hidden_dropout_prob'},
        class_prefix='Electra',
        has_gelu_head=True,
        flatten=_flatten_electra,
        nest=_nest_electra,
    ),
    # Song et al. 2020, arXiv 2004.09297. In transformers, positions always begin at 2, and tokens with the id 1 have none.
    'mpnet': Family(
        prefix='mpnet.',
        model='bert',
        base_modules={
            **{ours: theirs for ours, theirs in BERT_MODULES.items() if ours != 'segment_embedding'},
            **block_modules(
                'encoder.layer.{}.attention.',
                qkv=('attn.q', 'attn.k', 'attn.v'),
                out='attn.o',
                attention_norm='LayerNorm',
            ),
            'layers/relative_bias': 'encoder.relative_attention_bias',
        },
        head_modules={
            **COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'lm_head.dense',
                'masked_lm/norm': 'lm_head.layer_norm',
                'masked_lm/bias': 'lm_head.bias',
            },
            'classify': _CLASSIFICATION_HEAD,
            'regress': _CLASSIFICATION_HEAD,
            'choice': CLASSIFIER,
        },
        tied={'lm_head.decoder.weight': 'bert/token_embedding', 'lm_head.decoder.bias': 'masked_lm/bias'},
        config_keys={ours: theirs for ours, theirs in CONFIG_KEYS.items() if ours != 'segments'},
        defaults={
            **{key: value for key, value in DEFAULTS.items() if key != 'type_vocab_size'},
            'vocab_size': 30527,
            'pad_token_id': 1,
        },
        fixed_config={
            'segments': 0,
            'relative_buckets': 32,
            'relative_max_distance': 128,
            'learned_positions': True,
        },
        required_config={'relative_attention_num_buckets': 32, 'pad_token_id': 1},
        class_prefix='MPNet',
        has_gelu_head=True,
        offset_follows_padding=True,
    ),
    # Nussbaum et al. 2024, arXiv 2402.01613. The names are those of its files; transformers has others inside.
    'nomic_bert': Family(
        prefix='nomic_bert.',
        model='bert',
        base_modules={
            'token_embedding': 'embeddings.word_embeddings',
            'segment_embedding': 'embeddings.token_type_embeddings',
            'embedding_norm': 'emb_ln',
            **block_modules(
                'encoder.layers.{}.',
                qkv='attn.Wqkv',
                out='attn.out_proj',
                attention_norm='norm1',
                up=('mlp.fc12', 'mlp.fc11'),  # fc12 is activated
                down='mlp.fc2',
                mlp_norm='norm2',
            ),
        },
        head_modules={
            'encode': {},
            'tag': CLASSIFIER,
            'mlm': {
                'masked_lm/dense': 'cls.predictions.transform.dense',
                'masked_lm/norm': 'cls.predictions.transform.layer_norm',
                'masked_lm/bias': 'cls.predictions.bias',
            },
            **dict.fromkeys(('classify', 'regress'), CLASSIFIER | {'bert/pooler': 'nomic_bert.pooler.dense'}),
        },
        # The heads of the published model have no biases.
        optional_tensors=('cls.predictions.bias', 'cls.predictions.transform.dense.bias'),
        renames={r'^bert\.': 'nomic_bert.'},
        tied={
            'cls.predictions.decoder.weight': 'bert/token_embedding',
            'cls.predictions.decoder.bias': 'masked_lm/bias',
        },
        config_keys=CONFIG_KEYS | {'rope_base': 'rope_theta'},
        defaults=nomic.DEFAULTS,
        fixed_config={'use_bias': False, 'head_bias': True, 'gated_mlp': True},
        dropout_keys=DROPOUT_KEYS,
        class_prefix='NomicBert',
        flatten=nomic.flatten,
        nest=nomic.nest,
    ),
    # Lan et al. 2020, arXiv 1909.11942. It has a projection even for embeddings of the width of the model.
    'albert': Family(
        prefix='albert.',
        model='bert',
        base_modules={
            **EMBEDDINGS,
            'embedding_projection': 'encoder.embedding_hidden_mapping_in',
            **block_modules(
                'encoder.albert_layer_groups.{}.albert_layers.0.',
                qkv=('attention.query', 'attention.key', 'attention.value'),
                out='attention.dense',
                attention_norm='attention.LayerNorm',
                up='ffn',
                down='ffn_output',
                mlp_norm='full_layer_layer_norm',
            ),
            'pooler': 'pooler',
        },
        head_modules={
            **COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'predictions.dense',
                'masked_lm/norm': 'predictions.LayerNorm',
                'masked_lm/bias': 'predictions.bias',
                'next_sentence': 'sop_classifier.classifier',
            },
            **dict.fromkeys(('classify', 'regress', 'choice'), CLASSIFIER),
        },
        tied={
            'predictions.decoder.weight': 'bert/token_embedding',
            'predictions.decoder.bias': 'masked_lm/bias',
        },
        config_keys=CONFIG_KEYS | {'embedding_width': 'embedding_size', 'layer_groups': 'num_hidden_groups'},
        defaults=DEFAULTS
        | {
            'embedding_size': 128,
            'hidden_size': 4096,
            'num_attention_heads': 64,
            'intermediate_size': 16384,
            'num_hidden_groups': 1,
            'hidden_act': 'gelu_new',
            'hidden_dropout_prob': 0.0,
            'attention_probs_dropout_prob': 0.0,
            'vocab_size': 30000,
        },
        required_config=REQUIRED_CONFIG | {'inner_group_num': 1},
        dropout_keys={'classifier_dropout_prob': 'hidden_dropout_prob'},
        sentence_objective='swap',
        class_prefix='Albert',
        groups_key='num_hidden_groups',
    ),
}
