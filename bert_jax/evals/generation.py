"""Continue a prompt with a causal language model."""

from collections.abc import Iterator

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.modeling import decoding
from bert_jax.modeling.decoding import Sampling
from bert_jax.train import load


class Generator:
    """Continue prompts with a trained causal language model.

    Args:
      checkpoint: working directory of a run of the task clm, or the folder of one of its checkpoints.

    Raises:
      UserError: if there is no checkpoint, or its model is not a causal language model.
    """

    def __init__(self, checkpoint: str):
        self._trained = load.read(checkpoint)
        if self._trained.experiment.task.name != 'clm':
            raise UserError(
                f'{checkpoint!r} is not a causal language model. Set --checkpoint to the --workdir of a run with task.name=clm.'
            )

    def stream(self, prompt: str, length: int, sampling: Sampling, seed: int = 0) -> Iterator[str]:
        """Yield a continuation of the prompt piece by piece, as it is generated.

        Args:
          prompt: text to continue; an empty prompt starts a new document.
          length: maximum number of new tokens.
          sampling: temperature, top-k and top-p of the sampling.
          seed: seed of the sampling.

        Raises:
          UserError: if prompt and continuation together exceed the model's maximum length.
        """
        trained = self._trained
        (ids,) = trained.tokenizer.encode([prompt])
        ids = ids if len(ids) else np.array([trained.tokenizer.sep], np.int32)
        trained.experiment.model.check_length(len(ids) + length, '--length, shorten the prompt')
        return self._stream(ids, length, sampling, seed)

    def _stream(self, ids: np.ndarray, length: int, sampling: Sampling, seed: int) -> Iterator[str]:
        trained, tokenizer = self._trained, self._trained.tokenizer
        previous, tokens = tokenizer.decode(ids), [*ids]
        options = dict(end=tokenizer.sep, sampling=sampling, seed=seed)
        for new in decoding.stream(trained.graph, trained.params, [ids], length, **options):  # type: ignore[arg-type]
            tokens += [token for token in new[0] if token != tokenizer.sep]
            text = tokenizer.decode(tokens)
            if not text.endswith('\ufffd'):  # otherwise the last character is incomplete
                yield text[len(previous) :]
                previous = text
