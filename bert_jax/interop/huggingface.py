"""Hugging Face weights, in and out: BERT, GPT-2 and those of their kin that are the same models under other names.

A family is a table from our modules to theirs, see families.py. BERT's dense layer is `weight` [out, in] and `bias` there,
`kernel` [in, out] and `bias` here, as GPT-2's are there too; its query, key and value are three layers there and one here. Every
tensor is accounted for: one that is missing, left over or of another shape is an error that names it.
"""

import importlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.interop.families import ACTIVATIONS, ARCHITECTURES, FAMILIES, Family
from bert_jax.modeling.config import ModelConfig

Tensors = dict[str, np.ndarray]

# Not parameters, or copies of nothing: what old versions saved beside them.
_BUFFERS = re.compile(r'(^|\.)(embeddings\.(position_ids|token_type_ids)|h\.\d+\.attn\.(bias|masked_bias))$')
_OLD_NAMES = (
    (re.compile(r'LayerNorm\.gamma$'), 'LayerNorm.weight'),
    (re.compile(r'LayerNorm\.beta$'), 'LayerNorm.bias'),
)


def family(config: Mapping[str, Any]) -> tuple[Family, str]:
    """The family and the task of a `config.json`.

    Raises:
      UserError: for a model type or an architecture that is not among them.
    """
    kind = config.get('model_type', '')
    if kind not in FAMILIES:
        raise UserError(f'Models of the type {kind!r} cannot be converted: {nearest(kind, FAMILIES)}')
    name = (config.get('architectures') or ['Model'])[0]
    task = next((t for suffix, t in ARCHITECTURES.items() if name.endswith(suffix)), '')
    if task == 'classify':
        problem, classes = config.get('problem_type'), len(labels(config))
        if problem == 'multi_label_classification' or (problem == 'regression' and classes > 1):
            raise UserError(
                f'config.json sets problem_type to {problem!r} with {classes} labels: one class or one number of each text can be converted.'
            )
        task = 'regress' if classes == 1 else task
    if task == 'encode' and 'encode' not in FAMILIES[kind].heads:
        task = next(iter(FAMILIES[kind].heads))  # the scores of what is next need no more than the words
    if task not in FAMILIES[kind].heads:
        known = [suffix for suffix, t in ARCHITECTURES.items() if t in FAMILIES[kind].heads]
        raise UserError(
            f'The architecture {name!r} cannot be converted: known endings are {", ".join(known)}.'
        )
    return FAMILIES[kind], task


def architecture(tensors: Mapping[str, np.ndarray]) -> str:
    """The architecture that tensors are of, where their `config.json` names none.

    A 'classifier' is taken to be of whole texts, as Google's code that fine-tunes BERT writes it.
    """
    for part, suffix in _HEADS.items():
        if any(name.startswith(part) for name in tensors):
            return suffix
    return 'Model'


_HEADS = {
    'cls.predictions': 'ForPreTraining',
    'final_logits_bias': 'ForConditionalGeneration',
    'lm_head': 'ForMaskedLM',
    'vocab_': 'ForMaskedLM',
    'qa_outputs': 'ForQuestionAnswering',
    'classifier': 'ForSequenceClassification',
}


def labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes of a `config.json`, which are numbers if it gives none."""
    names = config.get('id2label') or {str(i): f'LABEL_{i}' for i in range(config.get('num_labels', 2))}
    found = tuple(names[k] for k in sorted(names, key=int))
    if len({*found}) < len(found):
        raise UserError(f'config.json gives one name to two classes ({", ".join(found)}): mend id2label.')
    return found


def model_config(config: Mapping[str, Any]) -> ModelConfig:
    """Our config of a model from its `config.json`.

    Raises:
      UserError: for a setting that our model does not have.
    """
    found, _ = family(config)
    values = {o: config[t] for o, t in found.settings.items() if config.get(t) is not None}
    if missing := [
        theirs for ours, theirs in found.settings.items() if ours not in values and ours in _SHAPE
    ]:
        raise UserError(f'config.json has no {missing[0]!r}, so the shape of the model is not known.')
    for key, plain in found.plain.items():
        if config.get(key, plain) != plain:
            raise UserError(f'config.json sets {key} to {config[key]!r}; only {plain!r} can be converted.')
    activation = values.get('activation', 'gelu')
    if config['model_type'] == 'roberta' and family(config)[1] == 'mlm' and activation != 'gelu':
        raise UserError(
            f'RoBERTa has gelu in its masked LM, but {activation!r} in its blocks: this cannot be converted.'
        )
    if activation not in ACTIVATIONS:
        raise UserError(
            f'The activation {activation!r} cannot be converted: {nearest(activation, ACTIVATIONS)}'
        )
    values |= {'activation': ACTIVATIONS[activation], **found.fixed}
    for key, other in found.equal.items():
        if config.get(key, config[other]) != config[other]:
            raise UserError(
                f'config.json sets {key} to {config[key]}, but {other} to {config[other]}: only equal ones can be converted.'
            )
    first = found.skipped(config)
    values |= {'first_position': first, 'positions': found.position_rows(config) - first}
    return importlib.import_module(f'bert_jax.modeling.{found.model}').Config(**values)


_SHAPE = ('width', 'heads', 'layers', 'positions', 'vocab_size')


def kind_of(config: Any, words: Tokenizer) -> str:
    """The family that a model of ours can be written as: a BERT without segments is DistilBERT, with its tokens RoBERTa.

    Raises:
      UserError: for a choice that none of them has.
    """
    if config.name != 'bert':
        kind = next(kind for kind, found in FAMILIES.items() if found.model == config.name)
    else:
        kind = 'distilbert' if not config.segments else 'roberta' if words.family == 'roberta' else 'bert'
    skipped = FAMILIES[kind].skipped({'pad_token_id': words.pad})
    wanted: dict[str, Any] = {
        'norm': 'pre' if config.causal else 'post',
        'norm_kind': 'layer',
        'bias': True,
        'gated': False,
        'rotary': 0.0,
        'relative': 0,
        'kv_heads': config.heads if config.kv_heads == config.heads else 0,
        'first_position': skipped if config.first_position else 0,  # without them zeros are written
        **({'pooler': 'tanh'} if config.name == 'bert' else {}),
    }
    for key, value in {**wanted, **FAMILIES[kind].fixed}.items():
        if getattr(config, key) != value:
            raise UserError(
                f'A model with model.{key}={getattr(config, key)!r} has no counterpart among the models of '
                f'Hugging Face that are written here: only {value!r} has.'
            )
    return kind


def write_config(
    config: Any, task: str, classes: Sequence[str], words: Tokenizer, pairs: bool = False
) -> dict[str, Any]:
    """The `config.json` of a model of ours; the inverse of `model_config` and `family`.

    `classes` are the names of its classes, and `pairs` says whether it was pretrained on pairs as well.
    """
    kind = kind_of(config, words)
    found = FAMILIES[kind]
    if task not in found.heads:
        raise UserError(f'A model of the task {task!r} has no counterpart among those of Hugging Face.')
    values = {theirs: getattr(config, ours) for ours, theirs in found.settings.items()}
    values['pad_token_id'] = words.pad
    values[found.settings['positions']] += found.skipped(values) - found.beside
    values |= {key: values[other] for key, other in found.equal.items()}
    values[found.settings['activation']] = {v: k for k, v in reversed(ACTIVATIONS.items())}[config.activation]
    suffix = next(s for s, t in ARCHITECTURES.items() if t == {'regress': 'classify'}.get(task, task))
    suffix = 'ForMaskedLM' if task == 'mlm' and not pairs else suffix
    names = {'bert': 'Bert', 'roberta': 'Roberta', 'distilbert': 'DistilBert', 'gpt2': 'GPT2', 'bart': 'Bart'}
    name = names[kind] + suffix
    if task == 'clm':
        values |= {'bos_token_id': words.cls, 'eos_token_id': words.sep, 'embd_pdrop': config.dropout}
    if task == 'denoise':
        values |= {'bos_token_id': words.cls, 'eos_token_id': words.sep, 'decoder_start_token_id': words.sep}
    values |= {'model_type': kind, 'architectures': [name], 'dtype': 'float32'}
    if task == 'regress':
        classes = ('LABEL_0',)
        values['problem_type'] = 'regression'
    if classes:
        values['id2label'] = {str(i): name for i, name in enumerate(classes)}
        values['label2id'] = {name: i for i, name in enumerate(classes)}
    return values


def from_tensors(
    tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> Tensors:
    """Our parameters from theirs.

    Args:
      tensors: of the checkpoint, by their names.
      config: its `config.json`.
      shapes: of our parameters, by path; the model's head is that of `family(config)`.

    Returns:
      float32 arrays of these shapes; a padded vocabulary is filled up with zeros.

    Raises:
      UserError: naming a tensor that is missing, left over, or of a shape that does not fit.
    """
    found, task = family(config)
    left = {_modern(name): value for name, value in tensors.items() if not _BUFFERS.search(name)}
    prefix = found.prefix if any(name.startswith(found.prefix) for name in left) else ''
    params: Tensors = {}
    for name, shape in shapes.items():
        parts = []
        wanted = _split(name, np.broadcast_to(np.float32(0), shape), found, task, prefix, config)
        for theirs, like in wanted.items():
            names = [theirs, *(copy for copy, original in found.tied.items() if original == name)]
            source = next((n for n in names if n in left), theirs)
            if source not in left and source not in found.optional:
                raise UserError(f'The checkpoint has no tensor {theirs!r}, which {name} is made from.')
            parts.append(left.pop(source, like).astype(np.float32))
            if parts[-1].shape != like.shape:
                raise UserError(
                    f'The tensor {source!r} is of shape {parts[-1].shape}, but config.json makes it {like.shape}.'
                )
        params[name] = _ours(name, parts, shape, found.linear)
    for copy, original in found.tied.items():
        if copy in left and original in params:
            value = left.pop(copy)
            if not np.array_equal(value, params[original][: config['vocab_size']]):
                raise UserError(
                    f'The tensor {copy!r} differs from {original}: untied heads cannot be converted.'
                )
    if left:
        raise UserError(
            f'The tensor {min(left)!r} has no place in the model (with {len(left) - 1} others): --leave_out={min(left)} '
            'would convert it without the tensors whose names begin so.'
        )
    return params


def to_tensors(params: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Tensors:
    """Their tensors from our parameters and the `config.json` that goes with them: the inverse of `from_tensors`."""
    found, task = family(config)
    prefix = '' if task == 'encode' else found.prefix
    tensors: Tensors = {}
    for name, value in params.items():
        tensors |= _split(name, value, found, task, prefix, config)
    return tensors


def _split(
    name: str, value: np.ndarray, found: Family, task: str, prefix: str, config: Mapping[str, Any]
) -> Tensors:
    """Their tensors from one parameter of ours."""
    names = _theirs(name, found, task, prefix)
    leaf = name.rpartition('/')[2]
    if name.endswith(_VOCABULARY):
        value = value[: config['vocab_size']]
    if name == 'logits_bias':
        value = value[None]
    if leaf == 'positions':
        skipped = found.position_rows(config) - len(value)
        value = np.concatenate([np.zeros((skipped, value.shape[1]), value.dtype), value])
    if leaf == 'kernel':
        # [in..., out...]; a head's output may have two dimensions, and so may what attention's output reads.
        outputs = value.shape[-1] if name.endswith('/out/kernel') else math.prod(value.shape[1:])
        flat = value.reshape(-1, outputs)
        values = [part.T if found.linear else part for part in np.split(flat, len(names), 1)]
    else:
        values = list(value.reshape(len(names), -1)) if leaf == 'bias' else [value]
    return {n: np.ascontiguousarray(v) for n, v in zip(names, values, strict=True)}


_VOCABULARY = ('/words', 'masked_lm/bias', 'logits_bias')


def _modern(name: str) -> str:
    for old, new in _OLD_NAMES:
        name = old.sub(new, name)
    return name


def _theirs(name: str, found: Family, task: str, prefix: str) -> list[str]:
    """Names of the tensors that make our parameter `name`."""
    head = found.heads[task]
    if name in head:
        return [head[name]]
    module, _, leaf = name.rpartition('/')
    ending = {'kernel': '.weight', 'scale': '.weight', 'bias': '.bias'}.get(leaf, '.weight')
    if leaf in ('words', 'positions', 'segments'):
        module = name
    if module in head:
        return [head[module] + ending]
    key = module.removeprefix(f'{found.model}/')
    layer = re.search(r'blocks/(\d+)/', key)
    theirs = found.encoder.get(re.sub(r'blocks/\d+/', 'blocks/{}/', key))
    if theirs is None:
        raise UserError(f'{name} has no place among the weights of this type of model.')
    names = theirs if isinstance(theirs, tuple) else (theirs,)
    return [prefix + n.format(layer[1] if layer else '') + ending for n in names]


def _ours(name: str, parts: list[np.ndarray], shape: tuple[int, ...], linear: bool) -> np.ndarray:
    """One parameter from its tensors."""
    if name == 'logits_bias':
        parts = [parts[0][0]]
    if name.endswith(_VOCABULARY) and len(parts[0]) < shape[0]:
        parts = [np.concatenate([parts[0], np.zeros((shape[0] - len(parts[0]), *shape[1:]), np.float32)])]
    if linear and name.endswith('/kernel'):
        parts = [p.T for p in parts]
    value = parts[0] if len(parts) == 1 else np.stack(parts, axis=parts[0].ndim - 1)
    return np.ascontiguousarray(value.reshape(shape))
