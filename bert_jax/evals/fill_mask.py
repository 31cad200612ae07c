"""What a masked language model puts in the place of [MASK]."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.modeling import module
from bert_jax.train import load


def fill(checkpoint: str, texts: Sequence[str], top: int = 5) -> list[list[list[tuple[str, float]]]]:
    """The likeliest tokens for each mask of each text.

    Args:
      checkpoint: of a pretrained model.
      texts: each with `[MASK]` in it.
      top: tokens a mask.

    Returns:
      For each text, for each of its masks in order, `top` pairs of token and probability.

    Raises:
      UserError: if the model predicts no tokens, a text has no mask, or is too long.
    """
    trained = load.read(checkpoint)
    model, tokenizer = module.merge(trained.graph, trained.params), trained.tokenizer
    if not hasattr(model, 'masked_lm'):
        raise UserError(
            f'{checkpoint!r} is not a masked language model: give the --workdir of a pretraining.'
        )
    forward = jax.jit(lambda tokens: jax.nn.softmax(model(tokens).logits[0]))
    filled = []
    for text, ids in zip(texts, tokenizer.encode(texts, special=True), strict=True):
        tokens = np.concatenate([[tokenizer.cls], ids, [tokenizer.sep]])
        places = np.flatnonzero(tokens == tokenizer.mask)
        if not len(places):
            raise UserError(f'{text!r} has no [MASK]: write it where a word is to be filled in.')
        values, best = jax.lax.top_k(
            forward(jnp.asarray(tokens[None], jnp.int32))[places], min(top, len(tokenizer))
        )
        filled.append(
            [
                [(tokenizer.token(i), float(p)) for i, p in zip(row, ps, strict=True)]
                for row, ps in zip(np.asarray(best), np.asarray(values), strict=True)
            ]
        )
    return filled
