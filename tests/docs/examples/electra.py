from bert_jax.interop.families import _BERT_MODULES, _CONFIG_KEYS, _DEFAULTS, FAMILIES, Family

FAMILIES['electra'] = Family(
    prefix='electra.',
    model='bert',
    base_modules={ours: theirs for ours, theirs in _BERT_MODULES.items() if ours != 'pooler'},
    head_modules={
        'encode': {},
        'tag': {'classifier': 'classifier'},
        'qa': {'span_classifier': 'qa_outputs'},
    },
    tied={},
    config_keys=_CONFIG_KEYS,
    defaults={
        **_DEFAULTS,
        'embedding_size': 128,
        'hidden_size': 256,
        'num_attention_heads': 4,
        'intermediate_size': 1024,
    },
    required_config={'position_embedding_type': 'absolute'},
    equal_config={'embedding_size': 'hidden_size'},
)
