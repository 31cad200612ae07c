"""Export trained models as programs that run without bert_jax: for JAX by `jax.export`, or for ONNX by jax2onnx."""

import importlib.util
import logging
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from bert_jax.core import paths
from bert_jax.core.errors import UserError, first_line
from bert_jax.interop import files, tokenizer_files
from bert_jax.modeling import module
from bert_jax.modeling.heads import LanguageModel
from bert_jax.train import load
from bert_jax.train.load import TrainedModel

PROGRAM, PARAMS, ONNX = 'program.jax', 'params.safetensors', 'model.onnx'
_JAX_USAGE = """import jax.export
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file('{folder}/tokenizer.json')
tokenizer.enable_padding(pad_id={pad})
program = jax.export.deserialize(bytearray(open('{folder}/program.jax', 'rb').read()))
params = load_file('{folder}/params.safetensors')

texts = tokenizer.encode_batch(['A short text.', 'A text that is longer.'])
tokens = np.array([text.ids for text in texts], np.int32)
segments = np.array([text.type_ids for text in texts], np.int32)
valid = np.array([text.attention_mask for text in texts], bool)
outputs = program.call(params, {arguments})
print({{name: array.shape for name, array in outputs.items()}})
"""
_ONNX_USAGE = """import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file('{folder}/tokenizer.json')
tokenizer.enable_padding(pad_id={pad}, length={length})
tokenizer.enable_truncation({length})
session = onnxruntime.InferenceSession('{folder}/model.onnx')

texts = tokenizer.encode_batch(['A short text.', 'A text that is longer.'])
tokens = np.array([text.ids for text in texts], np.int32)
segments = np.array([text.type_ids for text in texts], np.int32)
valid = np.array([text.attention_mask for text in texts], bool)
inputs = {{'tokens': tokens, 'segments': segments, 'valid': valid}}
inputs = {{x.name: inputs[x.name] for x in session.get_inputs()}}
outputs = dict(zip([x.name for x in session.get_outputs()], session.run(None, inputs)))
print({{name: array.shape for name, array in outputs.items()}})
"""


class _Program(NamedTuple):
    """A model as a function.

    Attributes:
      trained: the model.
      apply: maps parameters and the arrays of `inputs` to a dict of arrays: `hidden_state` [B, T, D] of the last layer
        and, if the model has them, `pooled` [B, D] and `logits`.
      inputs: names of the arrays: `tokens`, `segments` and `valid`, and for an encoder-decoder that generates text also
        `targets`, its decoder input.
    """

    trained: TrainedModel
    apply: Callable[..., dict[str, jax.Array]]
    inputs: tuple[str, ...]


def to_jax(source: pathlib.Path, folder: pathlib.Path, platforms: Sequence[str]) -> None:
    """Export a checkpoint as a program of StableHLO for any batch size and length, with its parameters and tokenizer.

    Args:
      source: working directory, or the folder of one step.
      folder: new folder.
      platforms: platforms of the program: 'cpu', 'cuda', 'rocm' or 'tpu'.

    Raises:
      UserError: if there is no checkpoint, or the folder is not empty.
    """
    paths.check_new_folder(folder, '--out')
    program = _load(source)
    longest = program.trained.experiment.model.longest_row
    lengths = ['t', 'u'][: 1 + ('targets' in program.inputs)]
    limits = [f'{length} <= {longest}' for length in lengths] if longest < math.inf else []
    batch, *symbols = jax_export.symbolic_shape(', '.join(['b', *lengths]), constraints=limits)
    shapes = {name: (batch, symbols[name == 'targets']) for name in program.inputs}
    params = {name: np.asarray(value) for name, value in program.trained.params.items()}
    abstract = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in params.items()}
    exported = jax_export.export(jax.jit(program.apply), platforms=platforms)(
        abstract, *(jax.ShapeDtypeStruct(shapes[name], _dtype(name)) for name in program.inputs)
    )
    arguments = ', '.join('tokens' if name == 'targets' else name for name in program.inputs)
    _write_folder(program, folder, _JAX_USAGE, arguments=arguments)
    files.write_tensors(params, folder / PARAMS)
    (folder / PROGRAM).write_bytes(exported.serialize())


def to_onnx(source: pathlib.Path, folder: pathlib.Path, length: int) -> None:
    """Export a checkpoint as an ONNX model for any batch size and one length, with its tokenizer.

    Args:
      source: working directory, or the folder of one step.
      folder: new folder.
      length: number of tokens in a row, padding included.

    Raises:
      UserError: if there is no checkpoint, jax2onnx is missing or cannot convert the model, or the folder is not empty.
    """
    if importlib.util.find_spec('jax2onnx') is None:
        raise UserError('The export to ONNX needs jax2onnx. Run `pip install jax2onnx onnxruntime`.')
    import jax2onnx

    paths.check_new_folder(folder, '--out')
    program = _load(source)
    program.trained.experiment.model.check_length(length, '--length')

    def apply(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        # Without the product, jax2onnx loses an output that other outputs are computed from.
        return tuple(1 * array for array in program.apply(program.trained.params, *inputs).values())

    inputs = [jax.ShapeDtypeStruct(('B', length), _dtype(name)) for name in program.inputs]
    concrete = [jax.ShapeDtypeStruct((2, length), _dtype(name)) for name in program.inputs]
    names = [*jax.eval_shape(program.apply, program.trained.params, *concrete)]
    logging.disable(logging.WARNING)  # jax2onnx logs each of its steps
    try:
        model = jax2onnx.to_onnx(apply, inputs, input_names=program.inputs, output_names=names)
    except Exception as e:  # jax2onnx raises various errors for what it does not know
        raise UserError(f'jax2onnx cannot convert this model ({first_line(e)}). Use --format=jax.') from e
    finally:
        logging.disable(logging.NOTSET)
    _write_folder(program, folder, _ONNX_USAGE, length=length)
    (folder / ONNX).write_bytes(model.SerializeToString())


def _dtype(name: str) -> Any:
    return jnp.bool_ if name == 'valid' else jnp.int32


def _load(source: pathlib.Path) -> _Program:
    trained = load.read(source)
    inputs: tuple[str, ...] = ('tokens', 'segments', 'valid')
    model = module.merge(trained.graph, trained.params)
    if isinstance(model, LanguageModel) and hasattr(trained.experiment.model, 'decoder_layers'):
        inputs += ('targets',)

    def apply(params: module.Params, *arrays: jax.Array) -> dict[str, jax.Array]:
        out = module.merge(trained.graph, params)(**dict(zip(inputs, arrays, strict=True)))
        outputs = {'hidden_state': out.hidden_states[-1], 'logits': out.logits, 'pooled': out.pooled}
        return {name: value.astype(jnp.float32) for name, value in outputs.items() if value is not None}

    return _Program(trained, apply, inputs)


def _write_folder(program: _Program, folder: pathlib.Path, usage: str, **values: Any) -> None:
    """Write the tokenizer and a README with an example into a new folder."""
    experiment, tokenizer = program.trained.experiment, program.trained.tokenizer
    longest = min(experiment.model.longest_row, experiment.data.length)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_files.write(
        tokenizer, folder, int(longest), segments=True, special_tokens=experiment.task.name != 'clm'
    )
    code = usage.format(folder=folder.name, pad=tokenizer.pad, **values)
    labels = ', '.join(f'`{label}`' for label in getattr(experiment.task, 'labels', ()))
    text = f'# {folder.name}\n\nExported by bert_jax, which this example does not need:\n\n```python\n{code}```\n'
    (folder / 'README.md').write_text(
        text + (f'\nThe logits belong to the classes {labels}.\n' if labels else '')
    )
