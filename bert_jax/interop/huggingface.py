"""Hugging Face weights, in and out: BERT and those of its kin that are the same model under other names.

A family is a table from our modules to theirs. A dense layer is `weight` [out, in] and `bias` there,
`kernel` [in, out] and `bias` here; query, key and value are three layers there and one here. Every
tensor is accounted for: one that is missing, left over or of another shape is an error that names it.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import bert

Tensors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Family:
    """A model type of Hugging Face.

    Attributes:
      prefix: of the encoder's tensors in a model that has a head.
      encoder: modules of our encoder to theirs; '{}' is the layer.
      heads: by task, modules outside the encoder; a module named in both is here.
      tied: names of copies of the word embeddings and of the bias of masked LM.
      settings: keys of `bert.Config` to keys of `config.json`.
      fixed: keys of `bert.Config` that this family fixes.
      after_padding: whether positions are counted from `pad_token_id` + 1 on, so that as many rows at the start
        of their table stand for none.
    """

    prefix: str
    encoder: Mapping[str, str | tuple[str, str, str]]
    heads: Mapping[str, Mapping[str, str]]
    tied: Mapping[str, str]
    settings: Mapping[str, str]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    after_padding: bool = False

    def skipped(self, config: Mapping[str, Any]) -> int:
        """How many rows of the position table stand for no position."""
        return config.get('pad_token_id', 1) + 1 if self.after_padding else 0


def _block(prefix: str, **parts: str | tuple[str, str, str]) -> dict[str, Any]:
    places = {
        'qkv': 'attention/qkv', 'out': 'attention/out', 'attention_norm': 'attention_norm',
        'up': 'mlp/up', 'down': 'mlp/down', 'mlp_norm': 'mlp_norm',
    }  # fmt: skip

    def full(part: Any) -> Any:
        return tuple(prefix + p for p in part) if isinstance(part, tuple) else prefix + part

    return {f'layers/blocks/{{}}/{places[k]}': full(v) for k, v in parts.items()}


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
_CLASSIFIER, _SPANS = {'classifier': 'classifier'}, {'spans': 'qa_outputs'}
FAMILIES = {
    'bert': Family(
        prefix='bert.',
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
    ),
    'roberta': Family(
        prefix='roberta.',
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
        after_padding=True,
    ),
    'distilbert': Family(
        prefix='distilbert.',
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
}
ARCHITECTURES = {
    'Model': 'encode',
    'ForPreTraining': 'mlm',
    'ForMaskedLM': 'mlm',
    'ForSequenceClassification': 'classify',
    'ForMultipleChoice': 'choice',
    'ForTokenClassification': 'tag',
    'ForQuestionAnswering': 'qa',
}
_ACTIVATIONS = {
    'gelu': 'gelu',
    'gelu_new': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'gelu_python': 'gelu',
    'gelu_fast': 'gelu_tanh',
    'relu': 'relu',
    'silu': 'silu',
    'swish': 'silu',
}
# Not parameters, or copies of nothing: what old versions saved beside them.
_BUFFERS = re.compile(r'(^|\.)embeddings\.(position_ids|token_type_ids)$')
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


def model_config(config: Mapping[str, Any]) -> bert.Config:
    """Our config of a model from its `config.json`.

    Raises:
      UserError: for a setting that our model does not have.
    """
    found, _ = family(config)
    values = {ours: config[theirs] for ours, theirs in found.settings.items() if theirs in config}
    if missing := [
        theirs for ours, theirs in found.settings.items() if ours not in values and ours in _SHAPE
    ]:
        raise UserError(f'config.json has no {missing[0]!r}, so the shape of the model is not known.')
    for key, plain in (
        ('position_embedding_type', 'absolute'),
        ('is_decoder', False),
        ('add_cross_attention', False),
    ):
        if config.get(key, plain) != plain:
            raise UserError(f'config.json sets {key} to {config[key]!r}; only {plain!r} can be converted.')
    activation = values.get('activation', 'gelu')
    if config['model_type'] == 'roberta' and family(config)[1] == 'mlm' and activation != 'gelu':
        raise UserError(
            f'RoBERTa has gelu in its masked LM, but {activation!r} in its blocks: this cannot be converted.'
        )
    if activation not in _ACTIVATIONS:
        raise UserError(
            f'The activation {activation!r} cannot be converted: {nearest(activation, _ACTIVATIONS)}'
        )
    values |= {'activation': _ACTIVATIONS[activation], **found.fixed}
    first = found.skipped(config)
    return bert.Config(**values | {'first_position': first, 'positions': values['positions'] - first})


_SHAPE = ('width', 'heads', 'mlp', 'layers', 'positions', 'vocab_size')


def kind_of(config: bert.Config, words: Tokenizer) -> str:
    """The family that a model of ours can be written as: without segments DistilBERT, with its tokens RoBERTa.

    Raises:
      UserError: for a choice that none of them has.
    """
    kind = 'distilbert' if not config.segments else 'roberta' if words.family == 'roberta' else 'bert'
    skipped = FAMILIES[kind].skipped({'pad_token_id': words.pad})
    wanted: dict[str, Any] = {
        'norm': 'post',
        'norm_kind': 'layer',
        'bias': True,
        'gated': False,
        'rotary': 0.0,
        'pooler': 'tanh',
        'first_position': skipped if config.first_position else 0,  # without them zeros are written
    }
    for key, value in {**wanted, **FAMILIES[kind].fixed}.items():
        if getattr(config, key) != value:
            raise UserError(
                f'A model with model.{key}={getattr(config, key)!r} has no counterpart among the models of '
                f'Hugging Face that are written here: only {value!r} has.'
            )
    return kind


def write_config(
    config: bert.Config, task: str, classes: Sequence[str], words: Tokenizer, pairs: bool = False
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
    values[found.settings['positions']] += found.skipped(values)
    values[found.settings['activation']] = {v: k for k, v in reversed(_ACTIVATIONS.items())}[
        config.activation
    ]
    suffix = next(s for s, t in ARCHITECTURES.items() if t == {'regress': 'classify'}.get(task, task))
    suffix = 'ForMaskedLM' if task == 'mlm' and not pairs else suffix
    name = {'bert': 'Bert', 'roberta': 'Roberta', 'distilbert': 'DistilBert'}[kind] + suffix
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
    copies = {original: copy for copy, original in found.tied.items()}
    for name, shape in shapes.items():
        parts = []
        wanted = _split(name, np.broadcast_to(np.float32(0), shape), found, task, prefix, config)
        for theirs, like in wanted.items():
            source = theirs if theirs in left else copies.get(name, theirs)
            if source not in left:
                raise UserError(f'The checkpoint has no tensor {theirs!r}, which {name} is made from.')
            parts.append(left.pop(source).astype(np.float32))
            if parts[-1].shape != like.shape:
                raise UserError(
                    f'The tensor {source!r} is of shape {parts[-1].shape}, but config.json makes it {like.shape}.'
                )
        params[name] = _ours(name, parts, shape)
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
    if name in _VOCABULARY:
        value = value[: config['vocab_size']]
    if name == 'bert/positions':
        skipped = config[found.settings['positions']] - len(value)
        value = np.concatenate([np.zeros((skipped, value.shape[1]), value.dtype), value])
    if leaf == 'kernel':
        # [in..., out...]; a head's output may have two dimensions, and so may what attention's output reads.
        outputs = value.shape[-1] if name.endswith('/out/kernel') else math.prod(value.shape[1:])
        flat = value.reshape(-1, outputs)
        values = [part.T for part in np.split(flat, len(names), 1)]
    else:
        values = list(value.reshape(len(names), -1)) if leaf == 'bias' else [value]
    return {n: np.ascontiguousarray(v) for n, v in zip(names, values, strict=True)}


_VOCABULARY = ('bert/words', 'masked_lm/bias')


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
    key = module.removeprefix('bert/')
    layer = re.search(r'blocks/(\d+)/', key)
    theirs = found.encoder.get(re.sub(r'blocks/\d+/', 'blocks/{}/', key))
    if theirs is None:
        raise UserError(f'{name} has no place among the weights of this type of model.')
    names = theirs if isinstance(theirs, tuple) else (theirs,)
    return [prefix + n.format(layer[1] if layer else '') + ending for n in names]


def _ours(name: str, parts: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """One parameter from its tensors."""
    if name in _VOCABULARY and len(parts[0]) < shape[0]:
        parts = [np.concatenate([parts[0], np.zeros((shape[0] - len(parts[0]), *shape[1:]), np.float32)])]
    if name.endswith('/kernel'):
        parts = [p.T for p in parts]
    value = parts[0] if len(parts) == 1 else np.stack(parts, axis=parts[0].ndim - 1)
    return np.ascontiguousarray(value.reshape(shape))
