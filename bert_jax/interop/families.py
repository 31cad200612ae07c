"""Tables that map the tensor names and config keys of Hugging Face models to our modules and settings."""

import dataclasses
from typing import Any

from bert_jax.interop import deberta, decoders, encoders, eurobert, modernbert, t5
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

FAMILIES = {
    'bert': Family(
        prefix='bert.',
        model='bert',
        base_modules=BERT_MODULES,
        head_modules={
            **COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'cls.predictions.transform.dense',
                'masked_lm/norm': 'cls.predictions.transform.LayerNorm',
                'masked_lm/bias': 'cls.predictions.bias',
                'next_sentence': 'cls.seq_relationship',
            },
            **dict.fromkeys(('classify', 'regress', 'choice'), CLASSIFIER),
        },
        tied={
            'cls.predictions.decoder.weight': 'bert/token_embedding',
            'cls.predictions.decoder.bias': 'masked_lm/bias',
        },
        config_keys=CONFIG_KEYS,
        defaults=DEFAULTS,
        required_config=REQUIRED_CONFIG,
        dropout_keys=DROPOUT_KEYS,
        class_prefix='Bert',
    ),
    'roberta': Family(
        prefix='roberta.',
        model='bert',
        base_modules=BERT_MODULES,
        head_modules={
            **COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'lm_head.dense',
                'masked_lm/norm': 'lm_head.layer_norm',
                'masked_lm/bias': 'lm_head.bias',
            },
            'classify': {'bert/pooler': 'classifier.dense', 'classifier': 'classifier.out_proj'},
            'regress': {'bert/pooler': 'classifier.dense', 'classifier': 'classifier.out_proj'},
        },
        tied={'lm_head.decoder.weight': 'bert/token_embedding', 'lm_head.decoder.bias': 'masked_lm/bias'},
        config_keys=CONFIG_KEYS,
        defaults=DEFAULTS | {'vocab_size': 50265, 'pad_token_id': 1},
        required_config=REQUIRED_CONFIG,
        dropout_keys=DROPOUT_KEYS,
        class_prefix='Roberta',
        has_gelu_head=True,
        offset_follows_padding=True,
    ),
    'distilbert': Family(
        prefix='distilbert.',
        model='bert',
        base_modules={
            **EMBEDDINGS,
            **block_modules(
                'transformer.layer.{}.',
                qkv=('attention.q_lin', 'attention.k_lin', 'attention.v_lin'),
                out='attention.out_lin',
                attention_norm='sa_layer_norm',
                up='ffn.lin1',
                down='ffn.lin2',
                mlp_norm='output_layer_norm',
            ),
        },
        head_modules={
            **COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'vocab_transform',
                'masked_lm/norm': 'vocab_layer_norm',
                'masked_lm/bias': 'vocab_projector.bias',
            },
            **dict.fromkeys(
                ('classify', 'regress', 'choice'), CLASSIFIER | {'bert/pooler': 'pre_classifier'}
            ),
        },
        tied={'vocab_projector.weight': 'bert/token_embedding'},
        config_keys={
            'width': 'dim',
            'heads': 'n_heads',
            'mlp_width': 'hidden_dim',
            'layers': 'n_layers',
            'activation': 'activation',
            'dropout': 'dropout',
            'attention_dropout': 'attention_dropout',
            'max_positions': 'max_position_embeddings',
            'vocab_size': 'vocab_size',
            'init_std': 'initializer_range',
        },
        defaults={
            'dim': 768,
            'n_heads': 12,
            'hidden_dim': 3072,
            'n_layers': 6,
            'activation': 'gelu',
            'dropout': 0.1,
            'attention_dropout': 0.1,
            'max_position_embeddings': 512,
            'vocab_size': 30522,
            'initializer_range': 0.02,
        },
        aliases={'hidden_size': 'dim', 'num_attention_heads': 'n_heads', 'num_hidden_layers': 'n_layers'},
        fixed_config={'segments': 0, 'norm_eps': 1e-12, 'pooler_activation': 'relu'},
        dropout_keys={'seq_classif_dropout': 'dropout', 'qa_dropout': 0.0},
        class_prefix='DistilBert',
    ),
    'gpt2': Family(
        prefix='transformer.',
        model='gpt',
        base_modules={
            'token_embedding': 'wte',
            'position_embedding': 'wpe',
            **block_modules(
                'h.{}.',
                qkv='attn.c_attn',
                out='attn.c_proj',
                attention_norm='ln_1',
                up='mlp.c_fc',
                down='mlp.c_proj',
                mlp_norm='ln_2',
            ),
            'layers/final_norm': 'ln_f',
        },
        head_modules={'clm': {}},
        tied={'lm_head.weight': 'gpt/token_embedding'},
        config_keys={
            'width': 'n_embd',
            'heads': 'n_head',
            'mlp_width': 'n_inner',
            'layers': 'n_layer',
            'activation': 'activation_function',
            'dropout': 'resid_pdrop',
            'attention_dropout': 'attn_pdrop',
            'max_positions': 'n_positions',
            'vocab_size': 'vocab_size',
            'norm_eps': 'layer_norm_epsilon',
            'init_std': 'initializer_range',
        },
        defaults={
            'n_embd': 768,
            'n_head': 12,
            'n_inner': None,  # 4 n_embd
            'n_layer': 12,
            'activation_function': 'gelu_new',
            'resid_pdrop': 0.1,
            'attn_pdrop': 0.1,
            'n_positions': 1024,
            'vocab_size': 50257,
            'layer_norm_epsilon': 1e-5,
            'initializer_range': 0.02,
            'eos_token_id': 50256,
        },
        aliases={
            'hidden_size': 'n_embd',
            'max_position_embeddings': 'n_positions',
            'num_attention_heads': 'n_head',
            'num_hidden_layers': 'n_layer',
        },
        has_linear_kernels=False,
        required_config={
            'scale_attn_weights': True,
            'scale_attn_by_inverse_layer_idx': False,
            'add_cross_attention': False,
        },
        dropout_keys={'embd_pdrop': 'resid_pdrop'},
        class_prefix='GPT2',
    ),
}
_BART_BLOCK: dict[str, Any] = {
    'qkv': ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'),
    'out': 'self_attn.out_proj',
    'attention_norm': 'self_attn_layer_norm',
    'up': 'fc1',
    'down': 'fc2',
    'mlp_norm': 'final_layer_norm',
}
FAMILIES['bart'] = Family(
    prefix='model.',
    model='bart',
    base_modules={
        'token_embedding': 'shared',
        'encoder/position_embedding': 'encoder.embed_positions',
        'encoder/embedding_norm': 'encoder.layernorm_embedding',
        'decoder/position_embedding': 'decoder.embed_positions',
        'decoder/embedding_norm': 'decoder.layernorm_embedding',
        **block_modules('encoder.layers.{}.', 'encoder/', **_BART_BLOCK),
        **block_modules(
            'decoder.layers.{}.',
            'decoder/',
            **_BART_BLOCK,
            cross_q='encoder_attn.q_proj',
            cross_kv=('encoder_attn.k_proj', 'encoder_attn.v_proj'),
            cross_out='encoder_attn.out_proj',
            cross_norm='encoder_attn_layer_norm',
        ),
    },
    head_modules={'denoise': {'logits_bias': 'final_logits_bias'}},
    optional_tensors=('final_logits_bias',),
    tied={
        'lm_head.weight': 'bart/token_embedding',
        **{
            f'{prefix}{side}.embed_tokens.weight': 'bart/token_embedding'
            for prefix in ('model.', '')
            for side in ('encoder', 'decoder')
        },
    },
    config_keys={
        'width': 'd_model',
        'heads': 'encoder_attention_heads',
        'mlp_width': 'encoder_ffn_dim',
        'layers': 'encoder_layers',
        'decoder_layers': 'decoder_layers',
        'activation': 'activation_function',
        'dropout': 'dropout',
        'attention_dropout': 'attention_dropout',
        'max_positions': 'max_position_embeddings',
        'vocab_size': 'vocab_size',
        'init_std': 'init_std',
    },
    defaults={
        'd_model': 1024,
        'encoder_attention_heads': 16,
        'decoder_attention_heads': 16,
        'encoder_ffn_dim': 4096,
        'decoder_ffn_dim': 4096,
        'encoder_layers': 12,
        'decoder_layers': 12,
        'activation_function': 'gelu',
        'dropout': 0.1,
        'attention_dropout': 0.0,
        'max_position_embeddings': 1024,
        'vocab_size': 50265,
        'init_std': 0.02,
        'eos_token_id': 2,
        'decoder_start_token_id': 2,
    },
    aliases={
        'hidden_size': 'd_model',
        'num_attention_heads': 'encoder_attention_heads',
        'num_hidden_layers': 'encoder_layers',
    },
    fixed_config={'norm_eps': 1e-5},
    required_config={
        'scale_embedding': False,
        # Options that only the first versions of transformers had.
        'normalize_before': False,
        'normalize_embedding': True,
        'add_final_layer_norm': False,
        'static_position_embeddings': False,
        'extra_pos_embeddings': 2,
    },
    equal_config={
        'decoder_attention_heads': 'encoder_attention_heads',
        'decoder_ffn_dim': 'encoder_ffn_dim',
        'decoder_start_token_id': 'eos_token_id',
    },
    dropout_keys={
        'activation_dropout': 0.0,
        'classifier_dropout': 'dropout',
        'encoder_layerdrop': 0.0,
        'decoder_layerdrop': 0.0,
    },
    class_prefix='Bart',
    uncounted_position_rows=2,
)
_MODERNBERT_HEAD = {'head/dense': 'head.dense', 'head/norm': 'head.norm'}
_MODERNBERT_POOLER = {'bert/pooler/dense': 'head.dense', 'bert/pooler/norm': 'head.norm'}
FAMILIES['modernbert'] = Family(
    prefix='model.',
    model='bert',
    base_modules={
        'token_embedding': 'embeddings.tok_embeddings',
        'embedding_norm': 'embeddings.norm',
        **block_modules(
            'layers.{}.',
            qkv='attn.Wqkv',
            out='attn.Wo',
            attention_norm='attn_norm',
            up='mlp.Wi',
            down='mlp.Wo',
            mlp_norm='mlp_norm',
        ),
        'layers/final_norm': 'final_norm',
    },
    head_modules={
        'encode': {},
        'mlm': {
            'masked_lm/dense': 'head.dense',
            'masked_lm/norm': 'head.norm',
            'masked_lm/bias': 'decoder.bias',
        },
        'tag': CLASSIFIER | _MODERNBERT_HEAD,
        'qa': {'span_classifier': 'classifier'} | _MODERNBERT_HEAD,
        **dict.fromkeys(('classify', 'regress', 'choice'), CLASSIFIER | _MODERNBERT_POOLER),
    },
    tied={'decoder.weight': 'bert/token_embedding'},
    config_keys={
        'width': 'hidden_size',
        'heads': 'num_attention_heads',
        'mlp_width': 'intermediate_size',
        'layers': 'num_hidden_layers',
        'activation': 'hidden_activation',
        'dropout': 'mlp_dropout',
        'attention_dropout': 'attention_dropout',
        'max_positions': 'max_position_embeddings',
        'vocab_size': 'vocab_size',
        'norm_eps': 'norm_eps',
        'norm_bias': 'norm_bias',
        'use_bias': 'attention_bias',
        'init_std': 'initializer_range',
        'pooling': 'classifier_pooling',
        'window': 'sliding_window',
        'global_every': 'global_attn_every_n_layers',
        'rope_base': 'global_rope_theta',
        'local_rope_base': 'local_rope_theta',
    },
    defaults={
        'hidden_size': 768,
        'num_attention_heads': 12,
        'intermediate_size': 1152,
        'num_hidden_layers': 22,
        'hidden_activation': 'gelu',
        'mlp_dropout': 0.0,
        'attention_dropout': 0.0,
        'max_position_embeddings': 8192,
        'vocab_size': 50368,
        'norm_eps': 1e-5,
        'norm_bias': False,
        'attention_bias': False,
        'mlp_bias': False,
        'classifier_bias': False,
        'classifier_activation': 'gelu',
        'initializer_range': 0.02,
        'classifier_pooling': 'cls',
    },
    fixed_config={
        'norm_placement': 'pre',
        'first_norm': False,
        'gated_mlp': True,
        'prediction_head': True,
        'segments': 0,
    },
    required_config={'decoder_bias': True},
    equal_config={
        'mlp_bias': 'attention_bias',
        'classifier_bias': 'attention_bias',
        'classifier_activation': 'hidden_activation',
    },
    dropout_keys={'embedding_dropout': 'mlp_dropout', 'classifier_dropout': 'mlp_dropout'},
    class_prefix='ModernBert',
    flatten=modernbert.flatten,
    nest=modernbert.nest,
)
FAMILIES['xlm-roberta'] = dataclasses.replace(
    FAMILIES['roberta'], defaults=DEFAULTS | {'pad_token_id': 1}, class_prefix='XLMRoberta'
)
# RoBERTa with pre-norm blocks, as fairseq trains it (Ott et al. 2019, arXiv 1904.01038).
FAMILIES['roberta-prelayernorm'] = dataclasses.replace(
    FAMILIES['roberta'],
    prefix='roberta_prelayernorm.',
    base_modules={
        **BERT_MODULES,
        **block_modules(
            'encoder.layer.{}.', attention_norm='attention.LayerNorm', mlp_norm='intermediate.LayerNorm'
        ),
        'layers/final_norm': 'LayerNorm',
    },
    fixed_config={'norm_placement': 'pre'},
    class_prefix='RobertaPreLayerNorm',
)
# The decoders of Ettin (Weller et al. 2025, arXiv 2507.11412).
FAMILIES['modernbert-decoder'] = dataclasses.replace(
    FAMILIES['modernbert'],
    model='gpt',
    base_modules={
        **FAMILIES['modernbert'].base_modules,
        **block_modules('layers.{}.', qkv=('attn.q_proj', 'attn.k_proj', 'attn.v_proj')),
    },
    head_modules={
        'encode': {},
        'clm': {'head/dense': 'lm_head.dense', 'head/norm': 'lm_head.norm', 'logits_bias': 'decoder.bias'},
    },
    tied={'decoder.weight': 'gpt/token_embedding'},
    config_keys={k: v for k, v in FAMILIES['modernbert'].config_keys.items() if k != 'pooling'},
    defaults={
        **{k: v for k, v in FAMILIES['modernbert'].defaults.items() if k != 'classifier_pooling'},
        'eos_token_id': 50282,
    },
    fixed_config={
        'norm_placement': 'pre',
        'first_norm': False,
        'embedding_norm': True,
        'gated_mlp': True,
        'prediction_head': True,
    },
    class_prefix='ModernBertDecoder',
    flatten=modernbert.flatten_decoder,
    nest=modernbert.nest_decoder,
)
FAMILIES.update(encoders.FAMILIES)
FAMILIES |= t5.FAMILIES | decoders.FAMILIES | {'eurobert': eurobert.FAMILY, 'deberta-v2': deberta.FAMILY}
# Task by suffix of the class name; the first match counts.
ARCHITECTURES = {
    'ForCausalLM': 'clm',
    'LMHeadModel': 'clm',
    'ForConditionalGeneration': 'denoise',
    'Model': 'encode',
    'ForPreTraining': 'mlm',
    'ForMaskedLM': 'mlm',
    'ForSequenceClassification': 'classify',
    'ForMultipleChoice': 'choice',
    'ForTokenClassification': 'tag',
    'ForQuestionAnswering': 'qa',
}
# Our activations by Hugging Face name.
ACTIVATIONS = {
    'gelu': 'gelu',
    'gelu_new': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu_python': 'gelu',
    'gelu_fast': 'gelu_tanh',
    'relu': 'relu',
    'relu2': 'relu_squared',
    'silu': 'silu',
    'swish': 'silu',
}
