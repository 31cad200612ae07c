"""Choose the Hugging Face model type of one of our models, or say with which settings it would have one."""

from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.interop.families import FAMILIES
from bert_jax.interop.family import Family


def export_model_type(config: Any, tokenizer: Tokenizer, has_next_sentence: bool = False) -> str:
    """Choose the Hugging Face model type for the export of one of our models.

    A BERT without segment embeddings becomes a DistilBERT, and one whose position table begins with unused rows becomes
    a RoBERTa, or an XLM-R if its tokenizer is a Unigram model. With shared layers it becomes an ALBERT, with projected
    embeddings or a pooler with gelu an ELECTRA, with relative positions an MPNet, with rotary positions a NomicBERT. A
    BERT with pre-norm becomes a RoBERTa of that kind, with rotary positions a ModernBERT, and with RMS norms as well a
    EuroBERT. A GPT with rotary positions becomes a StarCoder2, with RMS norms a Llama, with norms of queries and keys as
    well a Qwen3, and with other settings of ModernBERT its decoder. A BERT with disentangled attention becomes a DeBERTa.
    A BART with relative positions becomes a T5, and such a BERT with RMS norms the encoder of a T5.

    Raises:
      UserError: for a setting that the model type does not support.
    """
    exported = {family.model: name for name, family in reversed(FAMILIES.items()) if family.class_prefix}
    if config.name not in exported:
        raise UserError(
            f'A {config.name} model cannot be exported to Hugging Face. Models that can are {", ".join(sorted(exported))}.'
        )
    model_type = _choose(config, tokenizer) or exported[config.name]
    family = family_for_export(model_type, config)
    pad = family.required_config.get('pad_token_id', tokenizer.pad)
    if tokenizer.pad != pad:
        raise UserError(
            f'A model whose padding token has the id {tokenizer.pad} cannot be exported to Hugging Face as {model_type!r}, '
            f'where it has the id {pad}. Pretrain a model with another tokenizer.'
        )
    offset = family.position_offset({'pad_token_id': tokenizer.pad})
    required: dict[str, Any] = {
        'norm_placement': 'pre' if config.causal else 'post',
        'norm_kind': 'layer',
        'norm_bias': True,
        'first_norm': True,
        'use_bias': True,
        'head_bias': config.head_bias and config.use_bias,  # has no effect with `use_bias`
        'qk_norm': False,
        'gated_mlp': False,
        'prediction_head': False,
        'window': 0,
        'rope_base': 0.0,
        'relative_buckets': 0,
        'learned_positions': False,
        'disentangled_buckets': 0,
        'kv_heads': config.heads if config.kv_heads == config.heads else 0,
        'head_width': config.head_width if config.head_width * config.heads == config.width else 0,
        'scale_attention': True,
        'tied_embeddings': True,
        'scale_logits': False,
        'position_offset': offset if config.position_offset else 0,  # missing rows are exported as zeros
        **_MODEL_DEFAULTS[config.name],
    }
    required = {k: v for k, v in required.items() if k not in family.config_keys} | dict(family.fixed_config)
    required.pop('dropout', None)  # of importance only in training
    if config.norm_kind == required['norm_kind'] == 'rms':  # which has no bias
        del required['norm_bias']
    if model_type == 'electra' and config.embedding_width == config.width:  # which it does not project
        required['embedding_width'] = 0
    if model_type == 'albert' and not config.embedding_width:  # which it always projects
        required['embedding_width'] = config.width
    unsupported = [field for field, value in required.items() if getattr(config, field) != value]
    changes = {f'model.{f}': (repr(getattr(config, f)), _as_flag(required[f])) for f in unsupported}
    if has_next_sentence and 'next_sentence' not in family.head_modules['mlm']:
        changes['task.sentence_objective'] = repr('random'), 'none'
    if changes:
        ours = ' and '.join(f'{key}={now}' for key, (now, _) in changes.items())
        overrides = ' '.join(f'--config.{key}={value}' for key, (_, value) in changes.items())
        pooling = ', or fine-tune it without task.pooling' if 'pooling' in unsupported else ''
        raise UserError(
            f'A model with {ours} cannot be exported to Hugging Face as {model_type!r}. '
            f'To export a model, pretrain it with `{overrides}`{pooling}.'
        )
    return model_type


# Settings that only some of our models have, and their values in the families that do not set them.
_MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    'bert': {
        'pooler_activation': 'tanh',
        'pooling': 'cls',
        'embedding_norm': True,
        'masked_lm_transform': True,
        'embedding_width': 0,
        'layer_groups': 0,
    },
    'gpt': {'embedding_norm': False},
    'bart': {'logits_bias': True},
}


def family_for_export(model_type: str, config: Any) -> Family:
    """Return the table of a model type for one of our models, which is an encoder if it is a BERT."""
    suffix = 'EncoderModel' if config.name == 'bert' else 'Model'
    family = FAMILIES[model_type]
    about = {'model_type': model_type, 'architectures': [suffix], 'is_gated_act': config.gated_mlp}
    return family if family.variant is None else family.variant(about)


def _as_flag(value: Any) -> str:
    """Format a setting as the value of a command-line flag."""
    return f'{value:g}' if isinstance(value, float) else str(value).lower()


def _choose(config: Any, tokenizer: Tokenizer) -> str:
    """Return the model type to which the settings of a model point, even if it lacks others of them; '' if to none."""
    if config.name == 'gpt':
        if not config.rope_base:
            return ''
        if config.norm_kind == 'rms':
            return 'qwen3' if config.qk_norm else 'llama'
        return (
            'modernbert-decoder'
            if config.gated_mlp or config.window or config.prediction_head
            else 'starcoder2'
        )
    if config.relative_buckets and (config.name, config.norm_kind) in (
        ('bart', 'layer'),
        ('bart', 'rms'),
        ('bert', 'rms'),
    ):
        return 't5'
    if config.name != 'bert':
        return ''
    if config.disentangled_buckets:
        return 'deberta-v2'
    if config.norm_placement == 'pre':
        if config.has_position_table:
            return 'roberta-prelayernorm'
        return 'eurobert' if config.norm_kind == 'rms' else 'modernbert'
    if config.layer_groups:
        return 'albert'
    if config.embedding_width or config.pooler_activation == 'gelu':
        return 'electra'
    if config.relative_buckets:
        return 'mpnet'
    if config.rope_base:
        return 'nomic_bert'
    if not config.segments:
        return 'distilbert'
    roberta = 'xlm-roberta' if tokenizer.kind == 'unigram' else 'roberta'
    return roberta if config.position_offset else ''
