from bert_jax.interop.bert_names import BERT_MODULES, CONFIG_KEYS, DEFAULTS, DROPOUT_KEYS, REQUIRED_CONFIG
from bert_jax.interop.families import FAMILIES
from bert_jax.interop.family import Family, block_modules

FAMILIES['roberta-prelayernorm'] = Family(
    prefix='roberta_prelayernorm.',
    model='bert',
    base_modules={
        **BERT_MODULES,
        **block_modules(
            'encoder.layer.{}.', attention_norm='attention.LayerNorm', mlp_norm='intermediate.LayerNorm'
        ),
        'layers/final_norm': 'LayerNorm',
    },
    head_modules={
        'encode': {},
        'tag': {'classifier': 'classifier'},
        'qa': {'span_classifier': 'qa_outputs'},
    },
    tied={},
    config_keys=CONFIG_KEYS,
    defaults=DEFAULTS | {'vocab_size': 50265, 'pad_token_id': 1},
    fixed_config={'norm_placement': 'pre'},
    required_config=REQUIRED_CONFIG,
    dropout_keys=DROPOUT_KEYS,
    offset_follows_padding=True,
)
