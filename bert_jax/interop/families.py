"""Models of Hugging Face as tables: their names for our modules and settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Family:
    """A model type of Hugging Face.

    Attributes:
      prefix: of the encoder's tensors in a model that has a head.
      model: the name of our model, whose parameters begin with it.
      encoder: modules of our encoder to theirs; '{}' is the layer.
      heads: by task, modules outside the encoder; a module named in both is here.
      tied: names of copies of the word embeddings and of the bias of masked LM.
      optional: tensors that are zero where they are missing.
      settings: keys of `bert.Config` to keys of `config.json`.
      fixed: keys of `bert.Config` that this family fixes.
      linear: whether a dense layer is a matrix [out, in] there, and not [in, out] as here.
      plain: settings of `config.json` that our model has in this way alone.
      equal: settings that must be those of others, as our model has one for both.
      after_padding: whether positions are counted from `pad_token_id` + 1 on, so that as many rows at the start
        of their table stand for none, and are counted among them.
      beside: rows at the start of the table of positions that stand for none, and are not counted.
    """

    prefix: str
    model: str
    encoder: Mapping[str, str | tuple[str, ...]]
    heads: Mapping[str, Mapping[str, str]]
    tied: Mapping[str, str]
    settings: Mapping[str, str]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optional: Sequence[str] = ()
    linear: bool = True
    plain: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    equal: Mapping[str, str] = dataclasses.field(default_factory=dict)
    after_padding: bool = False
    beside: int = 0

    def skipped(self, config: Mapping[str, Any]) -> int:
        """How many rows of the position table stand for no position."""
        return config.get('pad_token_id', 1) + 1 if self.after_padding else self.beside

    def position_rows(self, config: Mapping[str, Any]) -> int:
        """How many rows the position table has."""
        return config[self.settings['positions']] + self.beside


def _block(prefix: str, ours: str = '', **parts: str | tuple[str, ...]) -> dict[str, Any]:
    """The modules of a block: `prefix` is theirs and `ours` is ours."""
    places = {
        'qkv': 'attention/qkv', 'out': 'attention/out', 'attention_norm': 'attention_norm',
        'cross_q': 'cross/q', 'cross_kv': 'cross/kv', 'cross_out': 'cross/out', 'cross_norm': 'cross_norm',
        'up': 'mlp/up', 'down': 'mlp/down', 'mlp_norm': 'mlp_norm',
    }  # fmt: skip

    def full(part: Any) -> Any:
        return tuple(prefix + p for p in part) if isinstance(part, tuple) else prefix + part

    return {f'{ours}layers/blocks/{{}}/{places[k]}': full(v) for k, v in parts.items()}


_EMBEDDINGS = {
    'words': 'embeddings.word_embeddings',
    'positions': 'embeddings.position_embeddings',
    'segments': 'embeddings.token_type_embeddings',
    'norm': 'embeddings.LayerNorm',
}
_BERT_ENCODER = {
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
_SETTINGS = {
    'width': 'hidden_size',
    'heads': 'num_attention_heads',
    'mlp': 'intermediate_size',
    'layers': 'num_hidden_layers',
    'activation': 'hidden_act',
    'dropout': 'hidden_dropout_prob',
    'attention_dropout': 'attention_probs_dropout_prob',
    'positions': 'max_position_embeddings',
    'segments': 'type_vocab_size',
    'vocab_size': 'vocab_size',
    'norm_eps': 'layer_norm_eps',
    'init_std': 'initializer_range',
}
# What BERT's later versions can be told, and this one cannot.
_PLAIN = {'position_embedding_type': 'absolute', 'is_decoder': False, 'add_cross_attention': False}
_CLASSIFIER, _SPANS = {'classifier': 'classifier'}, {'spans': 'qa_outputs'}
FAMILIES = {
    'bert': Family(
        prefix='bert.',
        model='bert',
        encoder=_BERT_ENCODER,
        heads={
            'encode': {},
            'mlm': {
                'masked_lm/dense': 'cls.predictions.transform.dense',
                'masked_lm/norm': 'cls.predictions.transform.LayerNorm',
                'masked_lm/bias': 'cls.predictions.bias',
                'next_sentence': 'cls.seq_relationship',
            },
            'classify': _CLASSIFIER,
            'regress': _CLASSIFIER,
            'choice': _CLASSIFIER,
            'tag': _CLASSIFIER,
            'qa': _SPANS,
        },
        tied={
            'cls.predictions.decoder.weight': 'bert/words',
            'cls.predictions.decoder.bias': 'masked_lm/bias',
        },
        settings=_SETTINGS,
        plain=_PLAIN,
    ),
    'roberta': Family(
        prefix='roberta.',
        model='bert',
        encoder=_BERT_ENCODER,
        heads={
            'encode': {},
            'mlm': {
                'masked_lm/dense': 'lm_head.dense',
                'masked_lm/norm': 'lm_head.layer_norm',
                'masked_lm/bias': 'lm_head.bias',
            },
            'classify': {'bert/pooler': 'classifier.dense', 'classifier': 'classifier.out_proj'},
            'regress': {'bert/pooler': 'classifier.dense', 'classifier': 'classifier.out_proj'},
            'tag': _CLASSIFIER,
            'qa': _SPANS,
        },
        tied={'lm_head.decoder.weight': 'bert/words', 'lm_head.decoder.bias': 'masked_lm/bias'},
        settings=_SETTINGS,
        plain=_PLAIN,
        after_padding=True,
    ),
    'distilbert': Family(
        prefix='distilbert.',
        model='bert',
        encoder={
            'words': 'embeddings.word_embeddings',
            'positions': 'embeddings.position_embeddings',
            'norm': 'embeddings.LayerNorm',
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
        heads={
            'encode': {},
            'mlm': {
                'masked_lm/dense': 'vocab_transform',
                'masked_lm/norm': 'vocab_layer_norm',
                'masked_lm/bias': 'vocab_projector.bias',
            },
            'classify': {'bert/pooler': 'pre_classifier', **_CLASSIFIER},
            'regress': {'bert/pooler': 'pre_classifier', **_CLASSIFIER},
            'choice': {'bert/pooler': 'pre_classifier', **_CLASSIFIER},
            'tag': _CLASSIFIER,
            'qa': _SPANS,
        },
        tied={'vocab_projector.weight': 'bert/words'},
        settings={
            'width': 'dim',
            'heads': 'n_heads',
            'mlp': 'hidden_dim',
            'layers': 'n_layers',
            'activation': 'activation',
            'dropout': 'dropout',
            'attention_dropout': 'attention_dropout',
            'positions': 'max_position_embeddings',
            'vocab_size': 'vocab_size',
            'init_std': 'initializer_range',
        },
        fixed={'segments': 0, 'norm_eps': 1e-12, 'pooler': 'relu'},
    ),
    'gpt2': Family(
        prefix='transformer.',
        model='gpt',
        encoder={
            'words': 'wte',
            'positions': 'wpe',
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
        heads={'clm': {}},
        tied={'lm_head.weight': 'gpt/words'},
        settings={
            'width': 'n_embd',
            'heads': 'n_head',
            'mlp': 'n_inner',
            'layers': 'n_layer',
            'activation': 'activation_function',
            'dropout': 'resid_pdrop',
            'attention_dropout': 'attn_pdrop',
            'positions': 'n_positions',
            'vocab_size': 'vocab_size',
            'norm_eps': 'layer_norm_epsilon',
            'init_std': 'initializer_range',
        },
        linear=False,
        plain={
            'scale_attn_weights': True,
            'scale_attn_by_inverse_layer_idx': False,
            'add_cross_attention': False,
            'tie_word_embeddings': True,
        },
    ),
}
_BART: dict[str, Any] = {
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
    encoder={
        'words': 'shared',
        'encoder/positions': 'encoder.embed_positions',
        'encoder/norm': 'encoder.layernorm_embedding',
        'decoder/positions': 'decoder.embed_positions',
        'decoder/norm': 'decoder.layernorm_embedding',
        **_block('encoder.layers.{}.', 'encoder/', **_BART),
        **_block(
            'decoder.layers.{}.',
            'decoder/',
            **_BART,
            cross_q='encoder_attn.q_proj',
            cross_kv=('encoder_attn.k_proj', 'encoder_attn.v_proj'),
            cross_out='encoder_attn.out_proj',
            cross_norm='encoder_attn_layer_norm',
        ),
    },
    heads={'denoise': {'logits_bias': 'final_logits_bias'}},
    optional=('final_logits_bias',),
    tied={
        'lm_head.weight': 'bart/words',
        **{
            f'{prefix}{half}.embed_tokens.weight': 'bart/words'
            for prefix in ('model.', '')
            for half in ('encoder', 'decoder')
        },
    },
    settings={
        'width': 'd_model',
        'heads': 'encoder_attention_heads',
        'mlp': 'encoder_ffn_dim',
        'layers': 'encoder_layers',
        'decoder_layers': 'decoder_layers',
        'activation': 'activation_function',
        'dropout': 'dropout',
        'attention_dropout': 'attention_dropout',
        'positions': 'max_position_embeddings',
        'vocab_size': 'vocab_size',
        'init_std': 'init_std',
    },
    fixed={'norm_eps': 1e-5},
    plain={'scale_embedding': False, 'tie_word_embeddings': True},
    equal={
        'decoder_attention_heads': 'encoder_attention_heads',
        'decoder_ffn_dim': 'encoder_ffn_dim',
    },
    beside=2,
)
ARCHITECTURES = {  # endings of their names, the first that fits
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
