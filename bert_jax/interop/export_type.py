"""Choose the Hugging Face model type of one of our models, or say with which settings it would have one."""

from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.interop.families import FAMILIES


def export_model_type(config: Any, tokenizer: Tokenizer, has_next_sentence: bool = False) -> str:
    """Choose the Hugging Face model type for the export of one of our models.

    A BERT without segment embeddings becomes a DistilBERT, and one whose position table begins with unused rows becomes
    a RoBERTa, or an XLM-R if its tokenizer is a Unigram model. With shared layers it becomes an ALBERT, with projected
    embeddings or a pooler with gelu an ELECTRA, with relative positions an MPNet, with rotary positions a NomicBERT. A
    BERT with pre-norm and a GPT with rotary positions become a ModernBERT.

    Raises:
      UserError: for a setting that the model type does not support.
    """
    exported = {family.model: name for name, family in reversed(FAMILIES.items()) if family.class_prefix}
    if config.name not in exported:
        raise UserError(
            f'A {config.name} model cannot be exported to Hugging Face. Models that can are {", ".join(sorted(exported))}.'
        )
    model_type = _choose(config, tokenizer) or exported[config.name]
    family = FAMILIES[model_type]
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
        'gated_mlp': False,
        'prediction_head': False,
        **({'embedding_norm': False} if config.name == 'gpt' else {}),
        'window': 0,
        'rope_base': 0.0,
        'relative_buckets': 0,
        'learned_positions': False,
        'kv_heads': config.heads if config.kv_heads == config.heads else 0,
        'position_offset': offset if config.position_offset else 0,  # missing rows are exported as zeros
        **(
            {'pooler_activation': 'tanh', 'pooling': 'cls', 'embedding_width': 0, 'layer_groups': 0}
            if config.name == 'bert'
            else {}
        ),
    }
    required = {k: v for k, v in required.items() if k not in family.config_keys} | dict(family.fixed_config)
    if model_type == 'modernbert' and not config.rope_base:
        required['rope_base'] = 160_000.0
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
        raise UserError(
            f'A model with {ours} cannot be exported to Hugging Face as {model_type!r}. '
            f'To export a model, pretrain it with `{overrides}`.'
        )
    return model_type


def _as_flag(value: Any) -> str:
    """Format a setting as the value of a command-line flag."""
    return f'{value:g}' if isinstance(value, float) else str(value).lower()


def _choose(config: Any, tokenizer: Tokenizer) -> str:
    """Return the model type to which the settings of a model point, even if it lacks others of them; '' if to none."""
    if config.name == 'gpt':
        return 'modernbert-decoder' if config.rope_base else ''
    if config.name != 'bert':
        return ''
    if config.norm_placement == 'pre':
        return 'modernbert'
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
