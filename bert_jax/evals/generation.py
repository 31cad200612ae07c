"""Continue a prompt with a causal language model, or replace the masks of a text with a masked one."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import decoding, unmasking
from bert_jax.modeling.decoding import Sampling
from bert_jax.train.load import TrainedModel

_MASK = re.compile(r'\[mask(?:\s*:\s*(-?\d+))?\s*\]|<mask>', re.IGNORECASE)
_MAX_MASKS = 4096  # each step reads the whole text


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


def unmask(
    trained: TrainedModel, text: str, length: int, steps: int, sampling: Sampling, seed: int = 0
) -> Iterator[str]:
    """Yield a text with masks, and then the text after each step in which some of them are replaced.

    Args:
      trained: model from `load.read_masked`.
      text: text with masks: `[MASK]` for one token, `[MASK:8]` for eight. `<mask>` means the same as `[MASK]`.
      length: number of masks that are added at the end of a text without masks.
      steps: number of steps; 0 replaces one mask per step.
      sampling: temperature, top-k and top-p of the sampling.
      seed: seed of the sampling.

    Raises:
      UserError: if the text is too long for the model, or has a number of masks that is not positive.
    """
    tokenizer, mask = trained.tokenizer, trained.tokenizer.special_tokens[4]
    mask_id: Any = trained.tokenizer.mask
    if not _MASK.search(text):
        text = f'{text} [MASK:{length}]'

    def expand(match: re.Match[str]) -> str:
        count = int(match[1] or 1)
        if not 1 <= count <= _MAX_MASKS:
            raise UserError(f'{match[0]} stands for {count} tokens. Write a number from 1 to {_MAX_MASKS}.')
        return ' '.join([mask] * count)

    (ids,) = tokenizer.encode([_MASK.sub(expand, text)], parse_special=True)
    tokens = np.concatenate([tokenizer.prefix, ids, [tokenizer.sep]])
    longest = trained.experiment.model.longest_row
    if len(tokens) > longest:
        raise UserError(
            f'The text has {len(tokens)} tokens, but the model reads at most {longest}. Shorten it.'
        )
    options = dict(steps=steps, sampling=sampling, seed=seed, mask_offset=trained.mask_offset)
    rows = unmasking.unmask(
        trained.graph,
        trained.params,
        tokens,
        mask_id,
        tokenizer.ordinary_ids,
        **options,  # type: ignore[arg-type]
    )
    for row in itertools.chain([tokens], rows):
        yield _decode_masked(row[len(tokenizer.prefix) : -1], tokenizer)


def _decode_masked(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    """Decode token ids to text in which each mask is the name of the mask token."""
    first, *others = np.split(ids, np.flatnonzero(ids == tokenizer.mask))
    words = [tokenizer.decode(first)]
    for part in others:  # begins with a mask
        words += [tokenizer.special_tokens[4], tokenizer.decode(part[1:])]
    return ' '.join(stripped for word in words if (stripped := word.strip()))
