"""bert_jax: pretrain, fine-tune, evaluate and study BERT-like models in JAX.

Array axes: B batch, T tokens, D model width, N heads, H head width, F feed-forward width, L layers,
V vocabulary, P predicted positions. Comments write shapes as `[B, T, D]`. A *row* is one fixed-length
training example on disk, a *task* is a training objective (pretraining or downstream), and a
*command* is a module of `bert_jax.bin`.
"""

import pathlib
from typing import Any

__version__ = '0.1.0'


def load(path: str | pathlib.Path) -> tuple[Any, Any]:
    """Load the model and the tokenizer of a checkpoint.

    `model(tokens, segments)` takes two integer arrays [B, T]. It returns `hidden_states` (L+1 arrays
    [B, T, D]), `pooled` [B, D] and the `logits` of its head.

    Args:
      path: working directory of a run, its `checkpoints` folder, or the folder of one step.

    Raises:
      UserError: if no readable checkpoint is found.
    """
    from bert_jax.modeling import module
    from bert_jax.train import load as load_lib

    trained = load_lib.read(path)
    return module.merge(trained.graph, trained.params), trained.tokenizer
