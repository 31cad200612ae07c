"""Continue a prompt with a causal language model."""

from collections.abc import Iterator

import numpy as np

from bert_jax.modeling import decoding
from bert_jax.modeling.decoding import Sampling
from bert_jax.train.load import TrainedModel


def stream(
    trained: TrainedModel, prompt: str, length: int, sampling: Sampling, seed: int = 0
) -> Iterator[str]:
    """Yield the prompt, and then its continuation piece by piece, as it is generated.

    Args:
      trained: model from `load.read_causal`.
      prompt: text to continue; an empty prompt starts a new document.
      length: maximum number of new tokens.
      sampling: temperature, top-k and top-p of the sampling.
      seed: seed of the sampling.

    Raises:
      UserError: if prompt and continuation together exceed the model's maximum length.
    """
    tokenizer = trained.tokenizer
    (ids,) = tokenizer.encode([prompt])
    ids = ids if len(ids) else np.array([tokenizer.sep], np.int32)
    trained.experiment.model.check_length(len(ids) + length, '--length, shorten the prompt')
    yield prompt
    previous, tokens = tokenizer.decode(ids), [*ids]
    options = dict(end=tokenizer.sep, sampling=sampling, seed=seed)
    for new in decoding.stream(trained.graph, trained.params, [ids], length, **options):  # type: ignore[arg-type]
        tokens += [token for token in new[0] if token != tokenizer.sep]
        text = tokenizer.decode(tokens)
        if not text.endswith('\ufffd'):  # otherwise the last character is incomplete
            yield text[len(previous) :]
            previous = text
