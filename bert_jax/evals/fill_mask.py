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


def fill(checkpoint: str, texts: Sequence[str], top: int = 5) -> list[list[list[tuple[str, float]]]]:
    """Return the most likely tokens at each mask of each text.

    Args:
      checkpoint: working directory of a pretraining run, or the folder of one of its checkpoints.
      texts: texts with one or more `[MASK]` each; `<mask>` means the same, whatever the name in the vocabulary is.
      top: number of tokens to return for each mask.

    Returns:
      For each text, and for each of its masks in order, `top` pairs of a token and its probability. A token of the fake
      language of a `tasks.bilingual` model begins with ~.

    Raises:
      UserError: if the model is not a masked language model, or a text has no mask or is too long.
    """
    trained = load.read(checkpoint)
    model, tokenizer = module.merge(trained.graph, trained.params), trained.tokenizer
    if not hasattr(model, 'masked_lm'):
        raise UserError(
            f'{checkpoint!r} is not a masked language model. Set --checkpoint to the --workdir of a pretraining run.'
        )
    num_entries, token_name = len(tokenizer), tokenizer.token
    if trained.experiment.task.name == 'bilingual':
        num_entries, token_name = 2 * num_entries, functools.partial(token_text, tokenizer)
    probabilities = jax.jit(lambda tokens: jax.nn.softmax(model(tokens).logits[0]))
    results = []
    own_masks = [re.sub(r'\[MASK]|<mask>', tokenizer.special_tokens[4], text) for text in texts]
    for text, ids in zip(texts, tokenizer.encode(own_masks, parse_special=True), strict=True):
        tokens = np.concatenate([[tokenizer.cls], ids, [tokenizer.sep]])
        masked = np.flatnonzero(tokens == tokenizer.mask)
        if not len(masked):
            raise UserError(f'{text!r} has no [MASK]. Write [MASK] in place of the token to predict.')
        at_masks = probabilities(jnp.asarray(tokens[None], jnp.int32))[masked]
        values, best = map(np.asarray, jax.lax.top_k(at_masks, min(top, num_entries)))
        names = [[token_name(int(i)) for i in row] for row in best]
        masks = zip(names, values.tolist(), strict=True)
        results.append([list(zip(row, ps, strict=True)) for row, ps in masks])
    return results
