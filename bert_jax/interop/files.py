"""Folders of other libraries: a config and tensors, as Hugging Face or as Google's TensorFlow code wrote them."""

import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError, first_line
from bert_jax.interop.huggingface import Tensors


def find(name: str) -> pathlib.Path:
    """A local folder as it is, or what the Hugging Face hub has of this name, downloaded.

    Raises:
      UserError: if it is neither.
    """
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        return folder
    import huggingface_hub

    try:
        weights = ('*.safetensors', 'pytorch_model*.bin')
        for pattern in weights:  # the second where there is nothing of the first
            found = huggingface_hub.snapshot_download(name, allow_patterns=['*.json', '*.txt', pattern])
            if any(pathlib.Path(found).glob(pattern)):
                break
        return pathlib.Path(found)
    except Exception as e:  # of the network, of the name, of the hub
        raise UserError(
            f'{name!r} is no folder, and the Hugging Face hub did not give it ({first_line(e)}): '
            'name a folder with config.json and model.safetensors.'
        ) from e


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The `config.json` of a folder, or the `bert_config.json` of a TensorFlow checkpoint."""
    for name in ('config.json', 'bert_config.json'):
        file = folder / name
        if file.is_file():
            try:
                found = json.loads(file.read_text(encoding='utf-8'))
            except ValueError as e:
                raise UserError(f'{str(file)!r} is not JSON ({e}): download it again.') from e
            if not isinstance(found, dict):
                raise UserError(f'{str(file)!r} is no JSON object: download it again.')
            return {'model_type': 'bert', **found} if name == 'bert_config.json' else found
    raise UserError(f'There is no config.json in {str(folder)!r}: give the folder of a Hugging Face model.')


def read_tensors(folder: pathlib.Path) -> Tensors:
    """All tensors of a folder: safetensors in one file or several, else PyTorch's, else TensorFlow's.

    Raises:
      UserError: if there are none, or the library to read them is missing.
    """
    tensors: Tensors = {}
    try:
        if files := _parts(folder, 'model.safetensors'):
            for file in files:
                tensors |= _safetensors(file)
        elif files := _parts(folder, 'pytorch_model.bin'):
            for file in files:
                tensors |= _pytorch(file)
        elif files := sorted(folder.glob('*.ckpt*.index'), key=_step):
            tensors = _tensorflow(files[-1].with_suffix(''))
        else:
            raise UserError(
                f'There are no weights in {str(folder)!r}: they lie in model.safetensors, pytorch_model.bin or '
                'a TensorFlow checkpoint (*.ckpt.index).'
            )
    except UserError:
        raise
    except ImportError as e:
        raise UserError(f'{files[0].name} needs {e.name} to be read: pip install {e.name}.') from e
    except Exception as e:  # whatever these libraries raise on damaged files
        raise UserError(f'{str(files[0])!r} cannot be read ({first_line(e)}): download it again.') from e
    return tensors


def _parts(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The file of this name, or those that its index names; none if there is neither."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f'{name}.index.json'
    if not index.is_file():
        return []
    try:
        parts = sorted({*json.loads(index.read_text())['weight_map'].values()})
        files = [folder / part for part in parts]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f'{str(index)!r} is damaged: download it again.') from e
    if missing := next((file for file in files if not file.is_file()), None):
        raise UserError(f'{str(missing)!r} is missing, which {index.name} names: download it again.')
    return files


def _step(file: pathlib.Path) -> int:
    """The step in the name of a TensorFlow checkpoint, such as model.ckpt-100.index."""
    found = re.search(r'ckpt-(\d+)', file.name)
    return int(found[1]) if found else 0


def _safetensors(file: pathlib.Path) -> Tensors:
    from safetensors import safe_open

    with safe_open(file, framework='numpy') as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _pytorch(file: pathlib.Path) -> Tensors:
    import torch

    return {k: v.float().numpy() for k, v in torch.load(file, map_location='cpu', weights_only=True).items()}


_TENSORFLOW = (
    (r'^bert/embeddings/(word|position|token_type)_embeddings$', r'bert/embeddings/\1_embeddings/weight'),
    (r'/layer_(\d+)/', r'/layer/\1/'),
    (r'/(gamma|kernel)$', '/weight'),
    (r'/beta$', '/bias'),
    (r'^cls/predictions/output_bias$', 'cls/predictions/bias'),
    (r'^cls/seq_relationship/output_weights$', 'cls/seq_relationship/weight'),
    (r'^cls/seq_relationship/output_bias$', 'cls/seq_relationship/bias'),
    (r'^cls/squad/output_weights$', 'qa_outputs/weight'),
    (r'^cls/squad/output_bias$', 'qa_outputs/bias'),
    (r'^output_weights$', 'classifier/weight'),
    (r'^output_bias$', 'classifier/bias'),
)


def _tensorflow(prefix: pathlib.Path) -> Tensors:
    """Tensors of Google's BERT under the names of Hugging Face, without the optimizer's."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    tensors = {}
    for old in reader.get_variable_to_shape_map():
        if re.search(r'adam_[mv]$|^global_step$', old):
            continue
        value = np.asarray(reader.get_tensor(old))
        name = old
        for pattern, new in _TENSORFLOW:
            name = re.sub(pattern, new, name)
        tensors[name.replace('/', '.')] = value.T if old.endswith('/kernel') else value
    return tensors
