"""Checkpoints of other libraries made into ours, and ours into theirs."""

import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.core import paths
from bert_jax.core.config import as_dict
from bert_jax.core.errors import UserError, first_line
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.interop import files, huggingface
from bert_jax.modeling import module
from bert_jax.train import checkpoint, load
from bert_jax.train import experiment as experiment_lib


def from_hf(source: str, workdir: pathlib.Path, tokenizer: str = '', leave_out: Sequence[str] = ()) -> str:
    """Converts a Hugging Face model, or a TensorFlow checkpoint of Google's BERT.

    Args:
      source: its folder, or its name on the hub.
      workdir: a new working directory, whose checkpoint every door takes.
      tokenizer: a `vocab.txt` or `tokenizer.json`, if the folder has none.
      leave_out: beginnings of the names of tensors that are not wanted, such as an unused pooler's.

    Returns:
      The name of the task that its head is for.

    Raises:
      UserError: naming what is missing, left over, or cannot be expressed.
    """
    if any((step / 'about').exists() for step in checkpoint.steps(workdir)):
        raise UserError(f'{str(workdir)!r} holds a checkpoint already: choose another --to.')
    folder = files.find(source)
    config = files.read_config(folder)
    tensors = {k: v for k, v in files.read_tensors(folder).items() if not k.startswith(tuple(leave_out))}
    if not config.get('architectures'):
        config['architectures'] = [huggingface.architecture(tensors)]
    try:
        found, name = huggingface.family(config)
        model = huggingface.model_config(config)
    except UserError:
        raise
    except Exception as e:  # values of other types than they should be
        raise UserError(
            f'The config of {str(folder)!r} cannot be understood ({first_line(e)}): mend it.'
        ) from e
    task: dict[str, Any] = {'name': name}
    if name == 'mlm':
        task['next'] = 'random' if any('seq_relationship' in key for key in tensors) else 'none'
    elif name == 'encode':
        task['pooler'] = any(key.endswith('pooler.dense.weight') for key in tensors)
    elif name in ('classify', 'tag'):
        task['labels'] = huggingface.labels(config)
    sections = {'task': task, 'model': {'name': found.model, **as_dict(model)}}
    if name in ('mlm', 'clm', 'denoise'):
        sections['data'] = {'sources': ()}  # what it was pretrained on is not known
    if name in ('classify', 'regress', 'tag', 'choice'):
        sections['data'] = {'length': model.positions}  # as long as transformers reads a text
    words = _tokenizer(folder, tokenizer)
    if len(words) < model.vocab_size - model.pad_vocab_to:
        logging.warning(
            'the model has %d words, but the tokenizer %d: is it its own?', model.vocab_size, len(words)
        )
    experiment = experiment_lib.complete(experiment_lib.from_config(sections), words)
    made = experiment.make_task(words)
    _, shapes, _ = module.abstract(lambda rngs: made.module(experiment.model, rngs))
    params = huggingface.from_tensors(tensors, config, {n: s.shape for n, s in shapes.items()})
    about = {'config': experiment.as_dict(), 'tokenizer': json.loads(words.to_json())}
    checkpoint.write_params(workdir, jax.tree.map(jax.numpy.asarray, params), about)
    logging.info(
        '%d parameters from %d tensors of %s', sum(p.size for p in params.values()), len(tensors), folder
    )
    return name


def _tokenizer(folder: pathlib.Path, given: str) -> Tokenizer:
    try:
        return tokenizer_lib.load(given or folder)
    except UserError as e:
        raise UserError(str(e).replace('tokenizer.path', '--tokenizer')) from e


def to_hf(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes a checkpoint of ours as a folder that transformers loads.

    Raises:
      UserError: if the model has no counterpart there, or the folder holds a model already.
    """
    from safetensors.numpy import save_file

    if (folder / 'config.json').exists():
        raise UserError(f'{str(folder)!r} holds a model already: choose another --to_hf.')
    trained = load.read(source)
    experiment, words = trained.experiment, trained.tokenizer
    task, model = experiment.task, experiment.model
    pairs = getattr(task, 'next', 'none') != 'none'
    config = huggingface.write_config(model, task.name, getattr(task, 'labels', ()), words, pairs)
    tensors = huggingface.to_tensors(
        {name: np.asarray(value) for name, value in trained.params.items()}, config
    )
    folder.mkdir(parents=True, exist_ok=True)
    segments = config.get('type_vocab_size', 1) > 1
    words.save_for_hf(folder, model.positions, segments, closed=not model.causal)
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    paths.write(
        folder / 'config.json', json.dumps(config, indent=2) + '\n'
    )  # last: it makes the folder a model
