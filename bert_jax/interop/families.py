"""Tables that map the tensor names and config keys of Hugging Face models to our modules and settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Family:
    """Mapping of a Hugging Face model type to one of our models.

    Attributes:
      prefix: prefix of the base model's tensor names if the model has a head.
      model: name of our model, with which our parameter paths begin.
      base_modules: for each module of our base model, the Hugging Face module, or a tuple of those that ours
        combines, such as query, key and value; '{}' stands for the layer number.
      head_modules: for each task, the Hugging Face module for each module of our head; takes precedence over
        `base_modules`.
      tied: our parameter for each Hugging Face tensor that must equal it, such as the output embedding.
      config_keys: key of `config.json` for each field of our `Config`.
      defaults: for each key of `config.json` that is read, the value in transformers if the key is absent; a key
        without a default must be present.
      aliases: other names that transformers accepts for keys of `config.json`.
      fixed_config: fields of our `Config` that are the same for the whole family.
      optional_tensors: tensors that are zero if missing.
      has_linear_kernels: whether kernels are stored as [out, in]; ours are [in, out].
      required_config: for keys of `config.json`, the only value that our model supports.
      equal_config: keys of `config.json` whose value must equal that of another key.
      dropout_keys: for dropout rates of `config.json` that our `Config` lacks, the key of the rate that our model uses
        instead, or 0 where it has no dropout. They matter only in training, so they are written but not read.
      class_prefix: beginning of the class names in transformers; empty if models of this type are not exported.
      offset_follows_padding: whether positions begin at `pad_token_id` + 1; the unused rows count towards
        `max_position_embeddings`.
      uncounted_position_rows: number of unused rows at the start of the position table that do not count
        towards `max_position_embeddings`.
    """

    prefix: str
    model: str
    base_modules: Mapping[str, str | tuple[str, ...]]
    head_modules: Mapping[str, Mapping[str, str]]
    tied: Mapping[str, str]
    config_keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optional_tensors: Sequence[str] = ()
    has_linear_kernels: bool = True
    required_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    equal_config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dropout_keys: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    class_prefix: str = ''
    offset_follows_padding: bool = False
    uncounted_position_rows: int = 0

    def complete(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a `config.json` with the defaults of transformers for absent keys.

        Each alias is replaced by the key that it stands for.
        """
        # In transformers, too, an alias takes precedence over the key that it stands for.
        renamed = {self.aliases[key]: value for key, value in config.items() if key in self.aliases}
        return {**self.defaults, **{k: v for k, v in config.items() if k not in self.aliases}, **renamed}

    def dropout_rates(self, config: Mapping[str, Any]) -> dict[str, float]:
        """Return our model's dropout rate for each of the `dropout_keys`; `config` must be complete, see `complete`."""
        return {key: config[r] if isinstance(r, str) else r for key, r in self.dropout_keys.items()}

    def position_offset(self, config: Mapping[str, Any]) -> int:
        """Return the number of unused rows at the start of the position table; `config` must be complete."""
        if self.offset_follows_padding:
            return config['pad_token_id'] + 1
        return self.uncounted_position_rows

    def position_rows(self, config: Mapping[str, Any]) -> int:
        """Return the number of rows of the position table; `config` must be complete."""
        return config[self.config_keys['max_positions']] + self.uncounted_position_rows


_BLOCK_MODULES = {
    'qkv': 'attention/qkv', 'out': 'attention/out', 'attention_norm': 'attention_norm',
    'cross_q': 'cross_attention/q', 'cross_kv': 'cross_attention/kv', 'cross_out': 'cross_attention/out',
    'cross_norm': 'cross_attention_norm', 'up': 'mlp/up', 'down': 'mlp/down', 'mlp_norm': 'mlp_norm',
}  # fmt: skip


def _block(prefix: str, our_prefix: str = '', **modules: str | tuple[str, ...]) -> dict[str, Any]:
    """Map the modules of our blocks to those of Hugging Face blocks, as in `Family.base_modules`.

    Args:
      prefix: prefix of the Hugging Face module names.
      our_prefix: prefix of our module names.
      **modules: Hugging Face module for each of our modules, without `prefix`; a tuple if ours combines several. The
        names of our modules are keys of `_BLOCK_MODULES`.
    """

    def add_prefix(names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return prefix + names if isinstance(names, str) else tuple(prefix + name for name in names)

    return {
        f'{our_prefix}layers/blocks/{{}}/{_BLOCK_MODULES[ours]}': add_prefix(theirs)
        for ours, theirs in modules.items()
    }


# DistilBERT has no segment embeddings, but otherwise the same names.
_EMBEDDINGS = {
    'token_embedding': 'embeddings.word_embeddings',
    'position_embedding': 'embeddings.position_embeddings',
    'segment_embedding': 'embeddings.token_type_embeddings',
    'embedding_norm': 'embeddings.LayerNorm',
}
_BERT_MODULES = {
    **_EMBEDDINGS,
    **_block(
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
_CONFIG_KEYS = {
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
_DEFAULTS = {
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
_REQUIRED_CONFIG = {'position_embedding_type': 'absolute', 'is_decoder': False, 'add_cross_attention': False}
_DROPOUT_KEYS = {'classifier_dropout': 'hidden_dropout_prob'}
_CLASSIFIER = {'classifier': 'classifier'}
# Heads that BERT, RoBERTa and DistilBERT have under the same names.
_COMMON_HEADS = {'encode': {}, 'tag': _CLASSIFIER, 'qa': {'span_classifier': 'qa_outputs'}}
FAMILIES = {
    'bert': Family(
        prefix='bert.',
        model='bert',
        base_modules=_BERT_MODULES,
        head_modules={
            **_COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'cls.predictions.transform.dense',
                'masked_lm/norm': 'cls.predictions.transform.LayerNorm',
                'masked_lm/bias': 'cls.predictions.bias',
                'next_sentence': 'cls.seq_relationship',
            },
            **dict.fromkeys(('classify', 'regress', 'choice'), _CLASSIFIER),
        },
        tied={
            'cls.predictions.decoder.weight': 'bert/token_embedding',
            'cls.predictions.decoder.bias': 'masked_lm/bias',
        },
        config_keys=_CONFIG_KEYS,
        defaults=_DEFAULTS,
        required_config=_REQUIRED_CONFIG,
        dropout_keys=_DROPOUT_KEYS,
        class_prefix='Bert',
    ),
    'roberta': Family(
        prefix='roberta.',
        model='bert',
        base_modules=_BERT_MODULES,
        head_modules={
            **_COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'lm_head.dense',
                'masked_lm/norm': 'lm_head.layer_norm',
                'masked_lm/bias': 'lm_head.bias',
            },
            'classify': {'bert/pooler': 'classifier.dense', 'classifier': 'classifier.out_proj'},
            'regress': {'bert/pooler': 'classifier.dense', 'classifier': 'classifier.out_proj'},
        },
        tied={'lm_head.decoder.weight': 'bert/token_embedding', 'lm_head.decoder.bias': 'masked_lm/bias'},
        config_keys=_CONFIG_KEYS,
        defaults=_DEFAULTS | {'vocab_size': 50265, 'pad_token_id': 1},
        required_config=_REQUIRED_CONFIG,
        dropout_keys=_DROPOUT_KEYS,
        class_prefix='Roberta',
        offset_follows_padding=True,
    ),
    'distilbert': Family(
        prefix='distilbert.',
        model='bert',
        base_modules={
            **_EMBEDDINGS,
            **_block(
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
            **_COMMON_HEADS,
            'mlm': {
                'masked_lm/dense': 'vocab_transform',
                'masked_lm/norm': 'vocab_layer_norm',
                'masked_lm/bias': 'vocab_projector.bias',
            },
            **dict.fromkeys(
                ('classify', 'regress', 'choice'), _CLASSIFIER | {'bert/pooler': 'pre_classifier'}
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
            **_block(
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
        **_block('encoder.layers.{}.', 'encoder/', **_BART_BLOCK),
        **_block(
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
# Task by suffix of the class name; the first match counts.
ARCHITECTURES = {
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
    'silu': 'silu',
    'swish': 'silu',
}
