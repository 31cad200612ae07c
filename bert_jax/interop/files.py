"""Model folders of other libraries: config and tensors in the formats of Hugging Face and of Google's TensorFlow BERT."""

import logging
import os
import pathlib
import re
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from bert_jax.core import paths
from bert_jax.core.errors import UserError, first_line
from bert_jax.interop.huggingface import Tensors


def find_folder(name: str) -> pathlib.Path:
    """Return the local folder `name`, or download the model of this name from the Hugging Face hub.

    Raises:
      UserError: if there is neither.
    """
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise UserError(f'{name!r} is a file. Pass its folder, with config.json and model.safetensors.')
    if name.startswith(('/', '.', '~')) or name.count('/') > 1:  # no name on the hub
        raise UserError(f'The folder {name!r} does not exist. Correct the path.')
    import huggingface_hub

    try:
        for weights in ('*.safetensors', 'pytorch_model*.bin'):  # PyTorch's only without safetensors
            patterns = ['*.json', '*.txt', '*.model', weights]
            downloaded = pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
            if any(downloaded.glob(weights)):
                break
        return downloaded
    except Exception as e:  # of many types, for network, name and hub
        raise UserError(
            f'{name!r} is not a folder, and the Hugging Face hub did not provide it ({first_line(e)}). '
            'Pass a folder with config.json and model.safetensors, or check the name and the network.'
        ) from e


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """Read the `config.json` of a folder, or the `bert_config.json` of a TensorFlow checkpoint.

    Raises:
      UserError: if there is neither, or it is not a JSON object.
    """
    for name in ('config.json', 'bert_config.json'):
        file = folder / name
        if file.is_file():
            try:
                config = paths.read_json(file)
            except ValueError as e:
                raise UserError(
                    f'{str(file)!r} is not a JSON object ({first_line(e)}). Download it again.'
                ) from e
            return {'model_type': 'bert', **config} if name == 'bert_config.json' else config
    raise UserError(f'{str(folder)!r} has no config.json. Pass the folder of a Hugging Face model.')


def read_tensors(folder: pathlib.Path) -> Tensors:
    """Read all tensors of a folder from safetensors, else from PyTorch files, else from a TensorFlow checkpoint.

    Raises:
      UserError: if there are none, a file is damaged, or the library that reads them is not installed.
    """
    tensors: Tensors = {}
    try:
        if files := _weight_files(folder, 'model.safetensors'):
            for file in files:
                tensors |= load_file(file)
        elif files := _weight_files(folder, 'pytorch_model.bin'):
            for file in files:
                tensors |= _read_pytorch(file)
        elif files := sorted(folder.glob('*.ckpt*.index'), key=_checkpoint_step):
            tensors = _read_tensorflow(files[-1].with_suffix(''))
        else:
            raise UserError(
                f'{str(folder)!r} has no weights. Pass a folder with model.safetensors, pytorch_model.bin or a '
                'TensorFlow checkpoint (*.ckpt.index).'
            )
    except UserError:
        raise
    except ImportError as e:
        raise UserError(f'Reading {files[0].name} needs {e.name}. Run `pip install {e.name}`.') from e
    except Exception as e:  # these libraries raise many types on damaged files
        raise UserError(f'{str(files[0])!r} cannot be read ({first_line(e)}). Download it again.') from e
    return _remove_wrapper(tensors)


# Prefixes of all tensors of a model that was saved inside a PyTorch wrapper: DataParallel, compile.
_WRAPPERS = ('module.', '_orig_mod.')


def _remove_wrapper(tensors: Tensors) -> Tensors:
    """Remove the prefix of a PyTorch wrapper, such as DataParallel, from the names of all tensors, and log it."""
    for prefix in _WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            logging.info('the names of all tensors begin with %s, which is removed', prefix)
            return _remove_wrapper({name.removeprefix(prefix): value for name, value in tensors.items()})
    return tensors


def _weight_files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Return the file `name`, or the files listed in its index; none if neither exists."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f'{name}.index.json'
    if not index.is_file():
        return []
    try:
        weight_map = paths.read_json(index)['weight_map']
        files = sorted({folder / part for part in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f'{str(index)!r} is damaged. Download it again.') from e
    if missing := next((file for file in files if not file.is_file()), None):
        raise UserError(f'{str(missing)!r} is missing, but {index.name} lists it. Download the model again.')
    return files


def _checkpoint_step(file: pathlib.Path) -> int:
    """Parse the step from the name of a TensorFlow checkpoint such as model.ckpt-100.index."""
    match = re.search(r'ckpt-(\d+)', file.name)
    return int(match[1]) if match else 0


def _read_pytorch(file: pathlib.Path) -> Tensors:
    import torch

    return {k: v.float().numpy() for k, v in torch.load(file, map_location='cpu', weights_only=True).items()}


# Replacements that turn the variable names of Google's BERT into those of old Hugging Face checkpoints, applied in order.
def write_tensors(tensors: Tensors, file: pathlib.Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that other users may read as they may other files; safetensors makes it private."""
    save_file(tensors, file, metadata)
    umask = os.umask(0)
    os.umask(umask)
    file.chmod(0o666 & ~umask)


_TENSORFLOW_NAMES = (
    (r'^bert/embeddings/(word|position|token_type)_embeddings$', r'bert/embeddings/\1_embeddings/weight'),
    (r'/layer_(\d+)/', r'/layer/\1/'),
    (r'/kernel$', '/weight'),
    (r'^cls/predictions/output_bias$', 'cls/predictions/bias'),
    (r'^cls/seq_relationship/output_weights$', 'cls/seq_relationship/weight'),
    (r'^cls/seq_relationship/output_bias$', 'cls/seq_relationship/bias'),
    (r'^cls/squad/output_weights$', 'qa_outputs/weight'),
    (r'^cls/squad/output_bias$', 'qa_outputs/bias'),
    (r'^output_weights$', 'classifier/weight'),
    (r'^output_bias$', 'classifier/bias'),
)


def _read_tensorflow(prefix: pathlib.Path) -> Tensors:
    """Read the tensors of Google's BERT under their Hugging Face names, without those of the optimizer."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    tensors = {}
    for variable in reader.get_variable_to_shape_map():
        if re.search(r'adam_[mv]$|^global_step$', variable):
            continue
        value = np.asarray(reader.get_tensor(variable))
        name = variable
        for pattern, replacement in _TENSORFLOW_NAMES:
            name = re.sub(pattern, replacement, name)
        tensors[name.replace('/', '.')] = value.T if variable.endswith('/kernel') else value
    return tensors
