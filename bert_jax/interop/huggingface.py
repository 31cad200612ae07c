"""Conversion between our models and those of Hugging Face, see `families.FAMILIES`.

A `Family` maps our modules to Hugging Face modules. Our dense layers have a `kernel` [in, out]; those of Hugging
Face have a `weight` [out, in], except in GPT-2, where it is [in, out]. Our models compute query, key and value in
one dense layer; Hugging Face uses three, except in GPT-2 and ModernBERT. A tensor that is missing, unused or of the wrong shape
raises an error that names it.
"""

import importlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.interop.export_type import export_model_type, family_for_export
from bert_jax.interop.families import ACTIVATIONS, ARCHITECTURES, FAMILIES
from bert_jax.interop.family import Family
from bert_jax.modeling.config import ModelConfig

Tensors = dict[str, np.ndarray]

# Tensors of old checkpoints that are not parameters.
_BUFFERS = re.compile(
    r'(^|\.)(embeddings\.(position_ids|token_type_ids)|h\.\d+\.attn\.(bias|masked_bias)'
    r'|EncDecAttention\.relative_attention_bias\.weight)$'
)
# For each prefix of tensor names that only one model class has, the suffix of the class name.
_ARCHITECTURE_BY_TENSOR = {
    'cls.predictions': 'ForPreTraining',
    'discriminator_predictions': 'ForPreTraining',
    'sop_classifier': 'ForPreTraining',
    'predictions': 'ForMaskedLM',
    'generator_predictions': 'ForMaskedLM',
    'final_logits_bias': 'ForConditionalGeneration',
    'lm_head.norm': 'ForCausalLM',
    'lm_head': 'ForMaskedLM',
    'vocab_': 'ForMaskedLM',
    'decoder.bias': 'ForMaskedLM',
    'qa_outputs': 'ForQuestionAnswering',
    'classifier': 'ForSequenceClassification',
    'shared': 'ForConditionalGeneration',
}
# Tasks whose head shares its weights with the token embedding.
_LANGUAGE_MODELS = ('mlm', 'clm', 'denoise')
_EMBEDDINGS = ('token_embedding', 'position_embedding', 'segment_embedding')
# Suffixes of the names of our parameters that have one entry per token of the vocabulary.
_VOCABULARY = ('/token_embedding', 'output_embedding', 'masked_lm/bias', 'logits_bias')


def family_and_task(config: Mapping[str, Any]) -> tuple[Family, str]:
    """Determine the family and the task of a model from its `config.json`.

    Raises:
      UserError: for a model type or architecture that cannot be converted.
    """
    family = _family(config)
    name = (config.get('architectures') or ['Model'])[0]
    tasks = {**ARCHITECTURES, **family.architectures}
    task = next((t for suffix, t in tasks.items() if name.endswith(suffix)), '')
    if task == 'classify':
        problem_type, classes = config.get('problem_type'), len(class_names(config))
        if problem_type not in (None, 'regression' if classes == 1 else 'single_label_classification'):
            raise UserError(
                f'config.json sets problem_type to {problem_type!r} with {classes} labels. Only models '
                'that predict one class or one number per text can be converted.'
            )
        task = 'regress' if classes == 1 else task
    if task == 'encode' and 'encode' not in family.head_modules:
        task = next(iter(family.head_modules))  # a language model whose head has no required tensors
    if task not in family.head_modules:
        known = [suffix for suffix, t in tasks.items() if t in family.head_modules]
        raise UserError(
            f'The architecture {name!r} cannot be converted. Supported names end in {" or ".join(known)}.'
        )
    return family, task


def _family(config: Mapping[str, Any]) -> Family:
    model_type = config.get('model_type', '')
    if model_type not in FAMILIES:
        raise UserError(
            f'Models of the type {model_type!r} cannot be converted: {did_you_mean(model_type, FAMILIES)}'
        )
    family = FAMILIES[model_type]
    return family if family.variant is None else family.variant(config)


def infer_model_type(tensors: Mapping[str, np.ndarray]) -> str:
    """Infer the model type from the first part of the tensor names, for a `config.json` that has none; '' if unknown."""
    prefixes = {n: family.prefix for n, family in FAMILIES.items() if family.prefix}
    return next((n for n, prefix in prefixes.items() if any(t.startswith(prefix) for t in tensors)), '')


def infer_architecture(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """Infer the suffix of the architecture from tensor names, for a `config.json` that has none.

    A 'classifier' is taken to classify whole texts, as in Google's fine-tuning code for BERT.
    """
    family = _family(config)
    tasks = {**ARCHITECTURES, **family.architectures}
    for beginning, suffix in _ARCHITECTURE_BY_TENSOR.items():
        if tasks[suffix] in family.head_modules and any(name.startswith(beginning) for name in tensors):
            return suffix
    return 'Model'


def is_saved_without_head(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bool:
    """Return whether the tensors are those of a bare encoder, but its `config.json` names a masked language model.

    Folders of sentence-transformers may keep the architecture with which their encoder was pretrained.
    """
    family, task = family_and_task(config)
    has_prefix = any(name.startswith(family.prefix) for name in tensors)
    return task == 'mlm' and not has_prefix and infer_architecture(config, tensors) == 'Model'


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes in a `config.json`; without them, LABEL_0, LABEL_1, ..."""
    labels: Any = config.get('id2label')
    count = config.get('num_labels', 2 if labels is None else len(labels))
    if labels is None or len(labels) != count:  # in transformers, too, num_labels takes precedence
        labels = {str(i): f'LABEL_{i}' for i in range(count)}
    names = tuple(labels.get(str(i)) for i in range(count))
    if not all(isinstance(name, str) for name in names):
        raise UserError(
            f'config.json has the id2label {labels!r}. Number the classes from 0, and name each by a string.'
        )
    if len({*names}) < len(names):
        raise UserError(
            f'config.json has the same name for two classes ({", ".join(names)}). Correct id2label.'
        )
    return names


def end_token(config: Mapping[str, Any]) -> Any:
    """Return the id of the token with which a generative model of this `config.json` ends a text."""
    return _family(config).complete(config)['eos_token_id']


def decoder_start_token(config: Mapping[str, Any]) -> Any:
    """Return the id of the token with which the decoder of an encoder-decoder begins; None for other models."""
    family = _family(config)
    return family.complete(config).get('decoder_start_token_id') if family.model == 'bart' else None


def unread_tensors(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return what the tensors compute that are not read, by the beginning of their names."""
    unread = _family(config).unread_tensors
    return {start: use for start, use in unread.items() if any(name.startswith(start) for name in tensors)}


def unread_dropout(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the dropout rates of a `config.json` in whose place our model uses another rate."""
    family = _family(config)
    rates = family.dropout_rates(family.complete(config))
    return {key: config[key] for key, rate in rates.items() if config.get(key) not in (None, rate)}


def to_model_config(config: Mapping[str, Any]) -> ModelConfig:
    """Convert a `config.json` to the `Config` of our model.

    Raises:
      UserError: for a setting that our model does not support.
    """
    family, task = family_and_task(config)
    config = family.complete(config)
    padding = ('pad_token_id',) if family.offset_follows_padding else ()
    for key in (*family.config_keys.values(), *family.equal_config, *padding):
        if key not in config:
            raise UserError(f'config.json has no {key!r}. Add it.')
        if config[key] is None and family.defaults.get(key, '') is not None:
            raise UserError(f'config.json sets {key} to null. Set it to a value.')
    values = {ours: config[theirs] for ours, theirs in family.config_keys.items()}
    values = {ours: value for ours, value in values.items() if value is not None}
    required_config = {'per_layer_config': None, **family.required_config}
    if task in _LANGUAGE_MODELS and 'tied_embeddings' not in family.config_keys:
        required_config['tie_word_embeddings'] = True
    for key, required in required_config.items():
        if config.get(key, required) != required:
            raise UserError(
                f'config.json sets {key} to {config[key]!r}, but only {required!r} can be converted.'
            )
    activation = values['activation']
    if family.has_gelu_head and task == 'mlm' and activation != 'gelu':
        raise UserError(
            f'config.json sets hidden_act to {activation!r}, but the masked-LM head of {family.class_prefix} always uses gelu. '
            'Only models whose layers use gelu too can be converted.'
        )
    if activation not in ACTIVATIONS:
        raise UserError(
            f'The activation {activation!r} cannot be converted: {did_you_mean(activation, ACTIVATIONS)}'
        )
    values |= {'activation': ACTIVATIONS[activation], **family.fixed_config}
    for key, other in family.equal_config.items():
        if config[key] != config[other]:
            raise UserError(
                f'config.json sets {key} to {config[key]}, but {other} to {config[other]}. Only equal values can '
                'be converted.'
            )
    if 'max_positions' in family.config_keys:
        offset = family.position_offset(config)
        values |= {'position_offset': offset, 'max_positions': family.position_rows(config) - offset}
    return importlib.import_module(f'bert_jax.modeling.{family.model}').Config(**values)


def to_hf_config(
    config: Any, task: str, classes: Sequence[str], tokenizer: Tokenizer, has_next_sentence: bool = False
) -> dict[str, Any]:
    """Convert the `Config` of our model to a `config.json`; the inverse of `to_model_config` and `family_and_task`.

    Args:
      config: settings of the model.
      task: name of the task.
      classes: names of the classes, empty for tasks other than classification.
      tokenizer: tokenizer of the model.
      has_next_sentence: whether a pretrained BERT has a next-sentence head.

    Raises:
      UserError: if the model or its task has no counterpart.
    """
    model_type = export_model_type(config, tokenizer, has_next_sentence)
    family = family_for_export(model_type, config)
    same_head = {
        'regress': 'classify',
        'bilingual': 'mlm',
        'seq2seq': 'clm' if config.causal else 'denoise',
    }
    their_task = same_head.get(task, task)
    suffixes = {name: suffix for suffix, name in reversed(ARCHITECTURES.items())} | {'rtd': 'ForPreTraining'}
    if their_task not in family.head_modules or their_task not in suffixes:
        known = {
            *family.head_modules,
            *(t for t, theirs in same_head.items() if theirs in family.head_modules),
        }
        raise UserError(
            f'A {config.name} model of the task {task!r} cannot be exported to Hugging Face as {model_type!r}. Tasks '
            f'that can be are {", ".join(sorted(known))}.'
        )
    if family.has_gelu_head and their_task == 'mlm' and config.activation != 'gelu':
        raise UserError(
            f'model.activation={config.activation!r} cannot be exported to Hugging Face as {model_type!r} for the task {task!r}. '
            f"Only 'gelu' is supported, which the head of {family.class_prefix} always uses."
        )
    values = {theirs: getattr(config, ours) for ours, theirs in family.config_keys.items()}
    values['pad_token_id'] = tokenizer.pad
    if model_type in _WITH_START_AND_END:
        start = tokenizer.sep if task == 'clm' else tokenizer.cls  # rows of clm have no [CLS]
        values |= {'bos_token_id': start, 'eos_token_id': tokenizer.sep}
    if model_type in ('modernbert', 'modernbert-decoder'):
        values |= {f'{name}_token_id': tokenizer.cls for name in ('cls', 'bos')}
        values |= {f'{name}_token_id': tokenizer.sep for name in ('sep', 'eos')}
    if model_type == 'eurobert':
        values |= {
            'bos_token_id': tokenizer.cls,
            'eos_token_id': tokenizer.sep,
            'mask_token_id': tokenizer.mask,
        }
    if model_type == 't5':
        values |= {'eos_token_id': tokenizer.sep, 'decoder_start_token_id': tokenizer.decoder_start}
    if 'max_positions' in family.config_keys:
        counted_rows = family.position_offset(values) - family.uncounted_position_rows
        values[family.config_keys['max_positions']] += counted_rows
    their_activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    values[family.config_keys['activation']] = their_activations[config.activation]
    values |= {key: values[other] for key, other in family.equal_config.items()}
    values |= family.dropout_rates(values)
    if model_type == 'bart':
        # Our generation does not end a text of maximal length with [SEP].
        values['forced_eos_token_id'] = None
    values = dict(family.nest(values))
    suffix = 'ForMaskedLM' if their_task == 'mlm' and not has_next_sentence else suffixes[their_task]
    if model_type == 'gpt2':
        suffix = 'LMHeadModel'
    if model_type == 't5' and their_task == 'encode':
        suffix = 'EncoderModel'
    architectures = [family.class_prefix + suffix]
    values |= {'model_type': model_type, 'architectures': architectures, 'dtype': 'float32'}
    if task == 'regress':
        classes = ('LABEL_0',)
        values['problem_type'] = 'regression'
    if classes:
        values['id2label'] = {str(i): name for i, name in enumerate(classes)}
        values['label2id'] = {name: i for i, name in enumerate(classes)}
    return values


# Model types whose `config.json` has the ids of the first and the last token under these names.
_WITH_START_AND_END = {
    *('roberta', 'roberta-prelayernorm', 'xlm-roberta', 'mpnet', 'albert'),
    *('gpt2', 'llama', 'qwen3', 'starcoder2', 'bart'),
}


def from_tensors(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> Tensors:
    """Convert Hugging Face tensors to the parameters of our model.

    Args:
      tensors: tensors of the checkpoint by name.
      config: its `config.json`.
      shapes: shapes of our parameters by path, for a model with the head of `family_and_task(config)`.

    Returns:
      float32 arrays of these shapes; padding entries of the vocabulary are zero.

    Raises:
      UserError: if a tensor is missing, unused or of the wrong shape; the message names it.
    """
    family, task = family_and_task(config)
    config = family.complete(config)
    unread = tuple(family.unread_tensors)
    remaining = {
        _modernize(name, family): value
        for name, value in tensors.items()
        if not _BUFFERS.search(name) and not name.startswith(unread)
    }
    prefix = family.prefix if any(name.startswith(family.prefix) for name in remaining) else ''
    params: Tensors = {}
    for name, shape in shapes.items():
        parts = []
        zeros = np.broadcast_to(np.float32(0), shape)
        # Converting zeros in the other direction gives the names and shapes of the tensors.
        for tensor, expected in _to_tensors(name, zeros, family, task, prefix, config).items():
            candidates = [tensor, *(copy for copy, original in family.tied.items() if original == name)]
            source = next((n for n in candidates if n in remaining), tensor)
            if source not in remaining and source not in family.optional_tensors:
                raise UserError(
                    f'The checkpoint has no tensor {tensor!r}, which the parameter {name} needs. Check that '
                    'config.json and the weights are of the same model.'
                )
            parts.append(remaining.pop(source, expected).astype(np.float32))
            if parts[-1].shape != expected.shape:
                raise UserError(
                    f'The tensor {source!r} has shape {parts[-1].shape}, but config.json implies {expected.shape}. '
                    'Check that config.json and the weights are of the same model.'
                )
        params[name] = _to_parameter(name, parts, shape, family.has_linear_kernels)
    for copy, original in family.tied.items():
        if copy in remaining and original in params:
            value = remaining.pop(copy)
            if not np.array_equal(value, params[original][: config['vocab_size']]):
                raise UserError(
                    f'The tensor {copy!r} differs from {original}. Untied heads cannot be converted.'
                )
    if remaining:
        others = f' (and {len(remaining) - 1} others)' if len(remaining) > 1 else ''
        raise UserError(
            f'The model has no parameter for the tensor {min(remaining)!r}{others}. Add --exclude={min(remaining)} '
            'to ignore all tensors whose names begin with this.'
        )
    return params


def to_tensors(params: Mapping[str, np.ndarray], config: Mapping[str, Any], task: str = '') -> Tensors:
    """Convert the parameters of our model to Hugging Face tensors; the inverse of `from_tensors`.

    Args:
      params: parameters of our model by path.
      config: its `config.json`.
      task: task whose head the model has; empty is that of `family_and_task`.
    """
    family, read_as = family_and_task(config)
    config, task = family.complete(config), task or read_as
    prefix = '' if task == 'encode' else family.prefix
    tensors: Tensors = {}
    for name, value in params.items():
        tensors |= _to_tensors(name, value, family, task, prefix, config)
    return tensors


def _to_tensors(
    name: str, value: np.ndarray, family: Family, task: str, prefix: str, config: Mapping[str, Any]
) -> Tensors:
    """Convert one of our parameters to the Hugging Face tensors that it consists of."""
    names = _tensor_names(name, family, task, prefix, config)
    leaf = name.rpartition('/')[2]
    if name.endswith(_VOCABULARY):
        value = value[: config['vocab_size']]
    if names == ['final_logits_bias']:
        value = value[None]
    if leaf == 'position_embedding':
        missing_rows = family.position_rows(config) - len(value)
        value = np.concatenate([np.zeros((missing_rows, value.shape[1]), value.dtype), value])
    if leaf == 'kernel':
        # Our kernels are [in, out], with several input dimensions in `out` of an attention and several output
        # dimensions in its other layers.
        outputs = value.shape[-1] if name.endswith('/out/kernel') else math.prod(value.shape[1:])
        parts = np.split(value.reshape(-1, outputs), len(names), 1)
        values = [part.T if family.has_linear_kernels else part for part in parts]
    else:
        values = list(value.reshape(len(names), -1)) if leaf == 'bias' else [value]
    return {n: np.ascontiguousarray(v) for n, v in zip(names, values, strict=True)}


def _to_parameter(
    name: str, parts: list[np.ndarray], shape: tuple[int, ...], has_linear_kernels: bool
) -> np.ndarray:
    """Combine Hugging Face tensors into one of our parameters; the inverse of `_to_tensors`."""
    if name == 'logits_bias':
        parts = [parts[0].reshape(-1)]
    if name.endswith(_VOCABULARY) and len(parts[0]) < shape[0]:
        parts = [np.concatenate([parts[0], np.zeros((shape[0] - len(parts[0]), *shape[1:]), np.float32)])]
    if has_linear_kernels and name.endswith('/kernel'):
        parts = [part.T for part in parts]
    value = parts[0] if len(parts) == 1 else np.stack(parts, axis=parts[0].ndim - 1)
    return np.ascontiguousarray(value.reshape(shape))


def _modernize(name: str, family: Family) -> str:
    """Replace a tensor name of an old checkpoint with its current name."""
    for pattern, replacement in family.renames.items():
        name = re.sub(pattern, replacement, name)
    return name.replace('LayerNorm.gamma', 'LayerNorm.weight').replace('LayerNorm.beta', 'LayerNorm.bias')


def _tensor_names(name: str, family: Family, task: str, prefix: str, config: Mapping[str, Any]) -> list[str]:
    """Return the names of the Hugging Face tensors for our parameter `name`."""
    head = family.head_modules[task]
    if name in head:
        return [head[name]]
    module, _, leaf = name.rpartition('/')
    suffix = '.bias' if leaf == 'bias' else '.weight'
    if leaf in _EMBEDDINGS:
        module = name
    if module in head:
        return [head[module] + suffix]
    key = module.removeprefix(f'{family.model}/')
    layer = re.search(r'blocks/(\d+)/', key)
    theirs = family.base_modules.get(re.sub(r'blocks/\d+/', 'blocks/{}/', key))
    if theirs is None:
        raise UserError(f'Hugging Face models of this type have no tensor for the parameter {name}.')
    names = theirs if isinstance(theirs, tuple) else (theirs,)
    number = family.layer_number(int(layer[1]), config) if layer else ''
    return [prefix + n.format(number) + suffix for n in names]
