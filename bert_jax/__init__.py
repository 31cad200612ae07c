"""bert_jax: pretrain, fine-tune, evaluate and study BERT-like models in JAX.

Array axes: B batch, T tokens, D model width, N heads, H head width, F feed-forward width, L layers,
V vocabulary, P predicted positions. Comments write shapes as `[B, T, D]`. A *row* is one fixed-length
training example on disk, a *task* is a training objective (pretraining or downstream), and a
*command* is a module of `bert_jax.bin`.
"""

import pathlib
import typing

if typing.TYPE_CHECKING:
    from bert_jax.data.tokenizer import Tokenizer
    from bert_jax.evals.embedder import Embedder
    from bert_jax.train.model import Model

__version__ = '0.1.0'


def load(path: str | pathlib.Path) -> 'tuple[Model, Tokenizer]':
    """Load the model and the tokenizer of a checkpoint.

    The tokenizer makes a batch from one text or several: `tokenizer(texts, pairs=None, max_length=None)` returns the
    arrays `tokens`, `segments` and `valid` [B, T], with special tokens and padding. `valid` is false on padding.

    The model maps a batch to its outputs: `model(**batch)` has `hidden_states`, L+1 arrays [B, T, D]; `pooled` [B, D],
    where the model has a pooler; and the `logits` of its head. These are [B, T, V] of a language model, [B, classes] of
    a classifier, [B, 1] of a regression, [B, T, classes] of a tagger, [B, T] of a detector of replaced tokens and
    [B, T, 2] of question answering, the start and the end of the answer. With `output_attentions=True`, it also has `attentions`, L arrays [B, N, T, T].

    `model.config` is the architecture, `model.class_names` are the names of the classes, `model.params` the parameters
    by path and `model.tokenizer` the tokenizer. A call is compiled once for each shape of a batch. It can be used under
    `jax.jit` and `jax.grad`, also with the model as an argument.

    Example:
      Predict a masked token, and classify two texts:

      >>> import bert_jax
      >>> model, tokenizer = bert_jax.load('runs/quickstart/pretrain')
      >>> batch = tokenizer('Return the [MASK] of the array.')
      >>> logits = model(**batch).logits  # [1, T, V]
      >>> best = logits[batch['tokens'] == tokenizer.mask].argmax(-1)
      >>> word = tokenizer.decode(best)
      >>>
      >>> model, tokenizer = bert_jax.load('runs/sst2')
      >>> logits = model(**tokenizer(['A fine film.', 'A dull film.'])).logits  # [2, classes]
      >>> names = [model.class_names[i] for i in logits.argmax(-1)]

    Args:
      path: working directory of a run, its `checkpoints` folder, or the folder of one step.

    Returns:
      The model and its tokenizer.

    Raises:
      UserError: if no readable checkpoint is found.
    """
    from bert_jax.train import model

    return model.load(path)


def load_embedder(path: str | pathlib.Path, pooling: typing.Any = None, length: int = 0) -> 'Embedder':
    """Load an encoder that maps texts to vectors.

    Example:
      Find the sentence that is most similar to another:

      >>> import bert_jax
      >>> embedder = bert_jax.load_embedder('runs/embed')
      >>> vectors = embedder.encode(['A cat sleeps.', 'Stocks fell.'])  # NumPy [n, D], of length 1
      >>> query = embedder.encode('A kitten naps.')  # [D]
      >>> best = (vectors @ query).argmax()

    Args:
      path: working directory of a run, or the folder of one of its checkpoints: of the task `embed`, or another encoder or
        decoder, whose head is not used.
      pooling: 'mean', 'cls', 'max', 'last', 'weighted' or 'tokens'; by default that of training, and 'mean' for other tasks.
      length: maximum number of tokens of a text; 0 takes that of training.

    Raises:
      UserError: if there is no readable checkpoint, or it has no encoder.
    """
    from bert_jax.evals import embedder

    return embedder.Embedder(path, pooling, length)
