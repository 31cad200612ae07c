"""Text by a model that predicts the next token."""

from collections.abc import Iterator

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.modeling import decoding
from bert_jax.modeling.decoding import Sampling
from bert_jax.train import load


class Writer:
    """Goes on with texts.

    Args:
      checkpoint: of a causal language model.

    Raises:
      UserError: if there is no checkpoint, or it is of another kind.
    """

    def __init__(self, checkpoint: str):
        self._trained = load.read(checkpoint)
        if self._trained.experiment.task.name != 'clm':
            raise UserError(
                f'{checkpoint!r} does not predict the next token: give the --workdir of a task clm.'
            )

    def stream(self, prompt: str, length: int, sampling: Sampling, seed: int = 0) -> Iterator[str]:
        """Pieces of text that go on with the prompt, as they are made.

        An empty prompt begins a document.

        Raises:
          UserError: if prompt and text are longer than the model's positions.
        """
        t = self._trained
        (ids,) = t.tokenizer.encode([prompt])
        ids = ids if len(ids) else np.array([t.tokenizer.sep], np.int32)
        t.experiment.model.check_length(len(ids) + length, 'the prompt shorter or --length')
        return self._pieces(ids, length, sampling, seed)

    def _pieces(self, ids: np.ndarray, length: int, sampling: Sampling, seed: int) -> Iterator[str]:
        t = self._trained
        before, made = t.tokenizer.decode(ids), [*ids]
        options = dict(end=t.tokenizer.sep, sampling=sampling, seed=seed)
        for new in decoding.stream(t.graph, t.params, [ids], length, **options):  # type: ignore[arg-type]
            made += [token for token in new[0] if token != t.tokenizer.sep]
            text = t.tokenizer.decode(made)
            if not text.endswith('\ufffd'):  # part of a character
                yield text[len(before) :]
                before = text
