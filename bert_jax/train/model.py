"""A trained model as a function of token ids, for use from Python; `bert_jax.load` returns it."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import attention, module
from bert_jax.modeling.config import ModelConfig
from bert_jax.modeling.heads import LanguageModel, Output
from bert_jax.train import load as load_lib

_HINT = 'Pass what the tokenizer returns: model(**tokenizer(texts)).'


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=['params'],
    meta_fields=['graph', 'config', 'tokenizer', 'class_names'],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model, called as `model(**tokenizer(texts))`.

    A call compiles a program for each new shape of its arrays. It also works under JAX transformations. A `Model` is a
    pytree of its parameters, so that it can be an argument: `jax.grad(loss)(model, batch)` returns a `Model` of
    gradients, and `optax.apply_updates` updates a `Model`.

    Attributes:
      params: parameters by path, such as 'bert/token_embedding'.
      graph: structure of the Flax NNX module.
      config: architecture, such as `config.width` and `config.vocab_size`.
      tokenizer: tokenizer of the model.
      class_names: names of the classes, in the order of the logits; empty for models without classes.
    """

    params: module.Params = dataclasses.field(repr=False)
    graph: module.Graph = dataclasses.field(repr=False)
    config: ModelConfig
    tokenizer: Tokenizer
    class_names: tuple[str, ...] = ()

    @property
    def module(self) -> Any:
        """The Flax NNX module with these parameters, whose parts can be called, such as `model.module.bert`."""
        return module.merge(self.graph, self.params)

    def __call__(
        self,
        tokens: Any,
        segments: Any = None,
        valid: Any = None,
        *,
        targets: Any = None,
        key: jax.Array | None = None,
        output_attentions: bool = False,
    ) -> Output:
        """Run the model with its head.

        Args:
          tokens: [B, T] token ids.
          segments: [B, T] 0 for the first text of a pair and 1 for the second; None means all 0.
          valid: [B, T] booleans, false on the padding at the end of each row, or document numbers of packed rows, see
            `masks.padding`; None means all true.
          targets: [B, U] decoder input ids of an encoder-decoder with a language-model head; None uses `tokens`
            shifted right by one, so that the logits at a position are those of the restored token.
          key: random key of dropout; None disables dropout.
          output_attentions: whether to return attention weights, for which the plain kernel computes attention.

        Returns:
          Hidden states, and what the model has of pooled vectors, logits and attention weights. Outputs at padding have
          no meaning.

        Raises:
          UserError: if an argument is not an array of ids of this shape, an id is beyond the vocabulary, or padding is
            not at the end of a row.
        """
        size, longest = self.config.vocab_size, self.config.longest_row
        inputs: dict[str, Any] = {'tokens': _check_ids('tokens', tokens, size, longest)}
        shape = inputs['tokens'].shape
        for name, value in (('segments', segments), ('valid', valid)):
            if value is not None:
                inputs[name] = _check_array(name, value)
                if inputs[name].shape != shape:
                    raise UserError(
                        f'{name} has the shape {inputs[name].shape}, but tokens has {shape}. {_HINT}'
                    )
        if 'valid' in inputs:
            _check_padding(inputs['valid'])
        if targets is not None:
            if not (hasattr(self.config, 'decoder_layers') and isinstance(self.module, LanguageModel)):
                raise UserError('This model does not generate from a source text. Leave out targets.')
            inputs['targets'] = _check_ids('targets', targets, size, longest)
        out, weights = _apply(self.graph, self.params, inputs, key, output_attentions)
        if not output_attentions:
            return out
        if not hasattr(self.config, 'decoder_layers'):
            return out._replace(attentions=(*weights,))
        # The encoder runs first. A layer of the decoder attends to the targets, then to the encoder.
        encoder, decoder = weights[: self.config.layers], weights[self.config.layers :]
        return out._replace(
            attentions=(*decoder[::2],), encoder_attentions=(*encoder,), cross_attentions=(*decoder[1::2],)
        )


def load(path: str | pathlib.Path) -> tuple[Model, Tokenizer]:
    """Load a model and its tokenizer; see `bert_jax.load`."""
    if not isinstance(path, str | os.PathLike):
        raise UserError(f'path is {path!r}. Pass the working directory of a run.')
    trained = load_lib.read(path)
    experiment = trained.experiment
    tokenizer = experiment.make_task(trained.tokenizer).tokenizer
    tokenizer.longest_row = experiment.model.longest_row
    tokenizer.adds_special_tokens = experiment.task.name != 'clm'
    class_names = getattr(experiment.task, 'labels', ())
    return Model(trained.params, trained.graph, experiment.model, tokenizer, class_names), tokenizer


@functools.partial(jax.jit, static_argnums=(0, 4))
def _apply(
    graph: module.Graph,
    params: module.Params,
    inputs: dict[str, jax.Array],
    key: jax.Array | None,
    output_attentions: bool,
) -> tuple[Output, list[jax.Array]]:
    """Run a model; return its output and the attention weights of all its attentions in order."""
    with attention.record_weights(output_attentions) as weights:
        return module.merge(graph, params)(**inputs, key=key), weights


def _check_array(name: str, value: Any) -> Any:
    """Convert an argument of a model to an array [B, T] of integers or booleans, or raise a UserError."""
    if isinstance(value, Mapping):
        raise UserError('The batch is one argument. Pass its entries by name: model(**batch).')
    if not isinstance(value, jax.Array):
        try:
            value = np.asarray(value)
        except ValueError as e:
            raise UserError(f'The rows of {name} have different lengths. {_HINT}') from e
        if value.dtype.kind in 'USO':
            raise UserError(f'{name} must be numbers, not text or other objects. {_HINT}')
    if value.ndim != 2 or 0 in value.shape:
        raise UserError(
            f'{name} has the shape {value.shape}, but must have rows and columns, [B, T]. {_HINT}'
        )
    if value.dtype.kind not in 'biu':
        raise UserError(f'{name} has the type {value.dtype}, but must be integers. {_HINT}')
    return value


def _check_padding(valid: Any) -> None:
    """Raise a UserError if booleans [B, T] are true after padding, since GPUs get only the length of each row."""
    if valid.dtype == bool and not isinstance(valid, jax.core.Tracer):
        values = np.asarray(valid)
        if (values[:, 1:] & ~values[:, :-1]).any():
            raise UserError('valid has padding before a token. Move the padding to the end of each row.')


def _check_ids(name: str, value: Any, vocab_size: int, longest_row: float) -> Any:
    """Convert token ids to an array [B, T] int32, or raise a UserError."""
    ids = _check_array(name, value)
    if not isinstance(ids, jax.core.Tracer):
        invalid = np.asarray(ids)
        invalid = invalid[(invalid < 0) | (invalid >= vocab_size)]
        if len(invalid):
            raise UserError(
                f'{name} contains the id {invalid[0]}, but the vocabulary has the ids 0 to {vocab_size - 1}. {_HINT}'
            )
    if ids.shape[1] > longest_row:
        raise UserError(
            f'Rows of {ids.shape[1]} tokens are longer than the {longest_row} positions of the model. '
            f'Cut them: tokenizer(texts, max_length={longest_row}).'
        )
    return ids.astype(jnp.int32)
