"""Names of tensors and keys of `config.json` that BERT shares with the models that derive from it in Hugging Face."""

from bert_jax.interop.family import block_modules

# DistilBERT has no segment embeddings, but otherwise the same names.
EMBEDDINGS = {
    'token_embedding': 'embeddings.word_embeddings',
    'position_embedding': 'embeddings.position_embeddings',
    'segment_embedding': 'embeddings.token_type_embeddings',
    'embedding_norm': 'embeddings.LayerNorm',
}
BERT_MODULES = {
    **EMBEDDINGS,
    **block_modules(
        'encoder.layer.{}.',
        qkv=('attention.self.query', 'attention.self.key', 'attention.self.value'),
        out='attention.output.dense',
        attention_norm='attention.output.LayerNorm',
        up='intermediate.dense',
        down='output.dense',
        mlp_norm='output.LayerNorm',
    ),
    'pooler': 'pooler.dense',
}
CONFIG_KEYS = {
    'width': 'hidden_size',
    'heads': 'num_attention_heads',
    'mlp_width': 'intermediate_size',
    'layers': 'num_hidden_layers',
    'activation': 'hidden_act',
    'dropout': 'hidden_dropout_prob',
    'attention_dropout': 'attention_probs_dropout_prob',
    'max_positions': 'max_position_embeddings',
    'segments': 'type_vocab_size',
    'vocab_size': 'vocab_size',
    'norm_eps': 'layer_norm_eps',
    'init_std': 'initializer_range',
}
DEFAULTS = {
    'hidden_size': 768,
    'num_attention_heads': 12,
    'intermediate_size': 3072,
    'num_hidden_layers': 12,
    'hidden_act': 'gelu',
    'hidden_dropout_prob': 0.1,
    'attention_probs_dropout_prob': 0.1,
    'max_position_embeddings': 512,
    'type_vocab_size': 2,
    'vocab_size': 30522,
    'layer_norm_eps': 1e-12,
    'initializer_range': 0.02,
}
# Options of BERT in Hugging Face that our model does not have.
REQUIRED_CONFIG = {'position_embedding_type': 'absolute', 'is_decoder': False, 'add_cross_attention': False}
DROPOUT_KEYS = {'classifier_dropout': 'hidden_dropout_prob'}
CLASSIFIER = {'classifier': 'classifier'}
# Heads that BERT, RoBERTa and DistilBERT have under the same names.
COMMON_HEADS = {'encode': {}, 'tag': CLASSIFIER, 'qa': {'span_classifier': 'qa_outputs'}}
