"""bert_jax: pretrain, fine-tune and study BERT on JAX.

Arrays: B batch, T tokens, D model width, N heads, H head width, F feed-forward width, L layers,
V vocabulary, P predicted positions; comments read `[B, T, D]`. A *row* is one fixed-length
training example on disk, a *task* an objective (pretraining or downstream), a *door* a command.
"""

import pathlib
from typing import Any


def load(path: str | pathlib.Path) -> tuple[Any, Any]:
    """The model and the tokenizer of a checkpoint.

    `model(tokens, segments)` takes [B, T] integers and returns `hidden_states` (L+1 arrays
    [B, T, D]), `pooled` [B, D] and the `logits` of its head.

    Args:
      path: a working directory, its `checkpoints` folder, or the folder of one step.

    Raises:
      UserError: if there is no checkpoint that can be read.
    """
    from bert_jax.modeling import module
    from bert_jax.train import load as load_lib

    trained = load_lib.read(path)
    return module.merge(trained.graph, trained.params), trained.tokenizer
