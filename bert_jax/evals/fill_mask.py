"""Predict the masked tokens of a text with a masked language model."""

import functools
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.fake_language import token_text
from bert_jax.modeling import module
from bert_jax.train import load


class MaskFiller:
    """Find the most likely tokens at the masks of texts.

    Args:
      checkpoint: working directory of a pretraining run, or the folder of one of its checkpoints. In a run of
        replaced-token detection, the generator fills the masks.

    Raises:
      UserError: if the model is not a masked language model.
    """

    def __init__(self, checkpoint: str):
        trained = load.read_masked(checkpoint)
        model, self._tokenizer = module.merge(trained.graph, trained.params), trained.tokenizer
        self._mask_offset = trained.mask_offset
        self._num_entries, self._token_name = len(self._tokenizer), self._tokenizer.token
        if trained.experiment.task.name == 'bilingual':
            self._num_entries *= 2
            self._token_name = functools.partial(token_text, self._tokenizer)
        self._max_tokens = trained.experiment.model.longest_row
        self._probabilities = jax.jit(lambda tokens: jax.nn.softmax(model(tokens).logits[0]))

    def __call__(self, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
        """Return the most likely tokens at each mask of a text.

        Args:
          text: text with one or more `[MASK]`; `<mask>` means the same, whatever the name in the vocabulary is.
          top: number of tokens to return for each mask.

        Returns:
          For each mask in order, `top` pairs of a token and its probability. A token of the fake language of a
          `tasks.bilingual` model begins with ~.

        Raises:
          UserError: if the text has no mask or is too long.
        """
        tokenizer = self._tokenizer
        with_own_masks = re.sub(r'\[MASK]|<mask>', tokenizer.special_tokens[4], text)
        (ids,) = tokenizer.encode([with_own_masks], parse_special=True)
        tokens = np.concatenate([tokenizer.prefix, ids, [tokenizer.sep]])
        masked = np.flatnonzero(tokens == tokenizer.mask)
        if not len(masked):
            raise UserError(f'{text!r} has no [MASK]. Write [MASK] in place of the token to predict.')
        if len(tokens) > self._max_tokens:
            raise UserError(
                f'{text[:60]!r}... has {len(tokens)} tokens, but the model reads at most {self._max_tokens}. '
                'Shorten the text.'
            )
        at_masks = self._probabilities(jnp.asarray(tokens[None], jnp.int32))[masked - self._mask_offset]
        values, best = map(np.asarray, jax.lax.top_k(at_masks, min(top, self._num_entries)))
        names = [[self._token_name(int(i)) for i in row] for row in best]
        return [list(zip(row, ps, strict=True)) for row, ps in zip(names, values.tolist(), strict=True)]


def fill(checkpoint: str, texts: Sequence[str], top: int = 5) -> list[list[list[tuple[str, float]]]]:
    """Return what `MaskFiller` returns for each text; raise UserError if a text has no mask or is too long."""
    filler = MaskFiller(checkpoint)
    return [filler(text, top) for text in texts]
