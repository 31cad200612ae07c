"""Map texts to vectors with a trained encoder; `bert_jax.load_embedder` returns an `Embedder`."""

import logging
import math
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.core.errors import UserError
from bert_jax.data.packing import choose_bucket_lengths
from bert_jax.modeling import module, sentence_vectors
from bert_jax.modeling.sentence_vectors import ForEmbedding, Pooling
from bert_jax.train import load

_WINDOW = 64  # number of batches whose texts are sorted by length together


class Embedder:
    """Encoder of texts on all local devices.

    Args:
      path: working directory of a run, or the folder of one of its checkpoints: of the task `embed`, or any other encoder
        or decoder, whose head is not used.
      pooling: vector of a text, see `sentence_vectors.pool`; by default that of training, and 'mean' for other tasks.
      length: maximum number of tokens of a text; longer ones are truncated. 0 takes that of training.

    Attributes:
      width: width of the vectors, D.
      length: maximum number of tokens of a text.
      query_prompt: text that preceded the first field of `data.texts` in training, such as 'query: '; '' for none.
      passage_prompt: the same for the second field, or for the only one.
      has_token_vectors: whether a text has a vector for each token (pooling 'tokens').
    """

    def __init__(self, path: str | pathlib.Path, pooling: Pooling | None = None, length: int = 0):
        if not isinstance(path, str | os.PathLike):
            raise UserError(f'path is {path!r}. Pass the working directory of a run.')
        trained = load.read(path)
        experiment = trained.experiment
        kind: Any = pooling or getattr(experiment.task, 'pooling', 'mean')
        width = getattr(experiment.task, 'output_width', 0)
        activation: Any = getattr(experiment.task, 'output_activation', 'identity')
        graph, shapes, _ = module.abstract(
            lambda rngs: ForEmbedding(experiment.model, rngs, kind, 0, width, activation)
        )
        missing = [name for name in shapes if name not in trained.params]
        if missing:
            raise UserError(
                f'{str(path)!r} holds no single encoder ({missing[0]} is missing). Pass a checkpoint of another task.'
            )
        self.tokenizer, self.width = trained.tokenizer, width or experiment.model.width
        self.has_token_vectors = kind == 'tokens'
        prompts = getattr(experiment.data, 'prompts', ()) or ('',)
        self.query_prompt, self.passage_prompt = prompts[0], prompts[:2][-1]
        self.length = int(min(length or experiment.data.length, experiment.model.longest_row))
        if self.length < 4:
            raise UserError(f'length={length} leaves no room for text. Set it to 4 or more.')
        mesh = Mesh(np.array(jax.local_devices()), ('data',))
        self._rows = NamedSharding(mesh, P('data'))
        params = {name: trained.params[name] for name in shapes}
        self._params = jax.device_put(params, NamedSharding(mesh, P()))

        @jax.jit
        def encode(params: module.Params, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
            valid = jax.numpy.arange(tokens.shape[1]) < lengths[:, None]
            return module.merge(graph, params).vectors(tokens, valid)

        self._encode = encode

    def encode(
        self,
        texts: str | Sequence[str],
        prompt: str = '',
        batch_size: int = 64,
        normalize: bool = True,
        show_progress: bool | None = None,
    ) -> np.ndarray:
        """Compute the vectors of texts, and log how many are truncated.

        Args:
          texts: n texts, or a single one.
          prompt: text that precedes each of them, such as 'query: '; see `query_prompt` and `passage_prompt`.
          batch_size: texts per batch; texts of like length share one.
          normalize: whether to scale the vectors to length 1.
          show_progress: whether to print the number of texts so far; by default on a terminal with more than 1,000 texts.

        Returns:
          [n, D] float32, or [D] for a single text. With `has_token_vectors`, [n, T, D], or [T, D], where T is the number of
          tokens of the longest text, and padding has zeros.

        Raises:
          UserError: if an argument is not text.
        """
        if isinstance(texts, str):
            return self.encode([texts], prompt, batch_size, normalize, False)[0]
        if texts is None or isinstance(texts, bytes):
            raise UserError(f'texts is {texts!r}. Pass a text or a list of texts.')
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f'texts[{i}] is {text!r}. Pass a list of texts.')
        if batch_size < 1:
            raise UserError(f'batch_size={batch_size} must be 1 or more. Raise it.')
        devices = self._rows.mesh.size
        batch_size = math.ceil(batch_size / devices) * devices
        tokens = (self.length,) if self.has_token_vectors else ()
        vectors = np.zeros((len(texts), *tokens, self.width), np.float32)
        longest = num_truncated = 0
        if show_progress is None:
            show_progress = len(texts) > 1000 and sys.stderr.isatty()
        shown = time.monotonic()
        for start in range(0, len(texts), _WINDOW * batch_size):
            window = texts[start : start + _WINDOW * batch_size]
            part = vectors[start : start + len(window)]
            lengths = self._encode_window(window, prompt, batch_size, part)
            longest = max(longest, min(self.length, int(lengths.max())))
            num_truncated += int(np.count_nonzero(lengths > self.length))
            if show_progress and (time.monotonic() - shown > 1 or start + len(window) == len(texts)):
                print(
                    f'\rencoded {start + len(window):,} of {len(texts):,} texts',
                    end='',
                    file=sys.stderr,
                    flush=True,
                )
                shown = time.monotonic()
        if show_progress and len(texts):
            print(file=sys.stderr)
        if num_truncated:
            logging.info(
                '%s of %s texts are truncated to %d tokens',
                f'{num_truncated:,}',
                f'{len(texts):,}',
                self.length,
            )
        vectors = vectors[:, :longest] if self.has_token_vectors else vectors
        return (
            np.asarray(sentence_vectors.normalize(jax.numpy.asarray(vectors)))
            if normalize and len(texts)
            else vectors
        )

    def _encode_window(
        self, texts: Sequence[str], prompt: str, batch_size: int, vectors: np.ndarray
    ) -> np.ndarray:
        """Encode texts in batches of like length, and write their vectors into `vectors` [n, D], or [n, T, D].

        Returns:
          The number of tokens of each text, [n], before it is truncated.
        """
        tokenizer = self.tokenizer
        room = self.length - len(tokenizer.prefix) - 1
        ids = tokenizer.encode([prompt + text for text in texts])
        encoded = [np.concatenate([tokenizer.prefix, x[:room], [tokenizer.sep]]) for x in ids]
        lengths = np.array([*map(len, encoded)])
        widths = np.minimum(choose_bucket_lengths(lengths, 8, 8), self.length)
        order = np.argsort(lengths, kind='stable')
        pending = []
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            width = widths[np.searchsorted(widths, lengths[members[-1]])]
            tokens = np.full((batch_size, width), tokenizer.pad, np.int32)
            for row, i in zip(tokens, members, strict=False):
                row[: lengths[i]] = encoded[i]
            sizes = np.ones(batch_size, np.int32)
            sizes[: len(members)] = lengths[members]
            pending.append(
                (members, self._encode(self._params, *jax.device_put((tokens, sizes), self._rows)))
            )
        for members, found in pending:
            vectors[members, : found.shape[1]] = np.asarray(found)[: len(members)]
        return np.array([*map(len, ids)]) + len(tokenizer.prefix) + 1
