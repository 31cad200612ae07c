"""Benchmark BERT fine-tuning in float32, in texts per second, against PyTorch on the same machine.

All programs classify the same 4,096 rows, with the lengths of SST-2 sentences, in batches of 32: forward and backward pass
and AdamW, without dropout. bert_jax and tuned PyTorch group rows of similar length into batches; transformers pads random
batches to their longest row. Called by `comparison.compare`.
"""

from typing import Any

import numpy as np

from bert_jax.benchmarks import pytorch
from bert_jax.benchmarks.pretraining import SIZES, VOCAB, make_bert
from bert_jax.benchmarks.timing import runs_per_second
from bert_jax.data.rows import HEADER

__all__ = ['RATE', 'SIZES', 'time_bert_jax', 'time_transformers', 'time_tuned_pytorch']

RATE = 'texts_per_second'
TEXTS, BATCH, LENGTH = 4096, 32, 64
_GROUP = 50 * BATCH  # rows that the sampler of transformers sorts together with `group_by_length`
# Length distribution of SST-2's training sentences in word pieces of BERT's uncased vocabulary: _SHARES[i] of them have at
# most _PIECES[i] pieces.
_SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)
_PIECES = (1, 2, 4, 5, 6, 8, 11, 14, 18, 25, 31, 37, 41, 62)


def make_rows() -> Any:
    """Make rows [n, 4 + T] (see `data.rows`) with random tokens and labels.

    The lengths of the rows are distributed like those of SST-2 sentences.
    """
    rng = np.random.default_rng(0)
    lengths = np.interp(rng.permutation(np.linspace(0, 1, TEXTS)), _SHARES, _PIECES)
    out = np.zeros((TEXTS, HEADER + LENGTH), np.uint32)
    for row, n in zip(out, 2 + np.round(lengths).astype(int), strict=True):
        row[:HEADER] = n, n, rng.integers(2), 0
        row[HEADER : HEADER + n] = rng.integers(1000, VOCAB, n)
    return out


def time_bert_jax(size: str, seconds: float) -> dict[str, float]:
    """Time fine-tuning epochs of bert_jax for about `seconds`."""
    from bert_jax.data.labeled import LabeledConfig
    from bert_jax.data.pipeline import Batches
    from bert_jax.tasks import classify
    from bert_jax.train.experiment import TrainConfig

    task: Any = classify.Task(classify.Config(labels=('a', 'b')), LabeledConfig(), None)  # type: ignore[arg-type]
    batches = Batches(make_rows(), task.example, BATCH, 0, length_buckets=TrainConfig().length_buckets)
    return {RATE: TEXTS * epochs_per_second(task, size, batches, TEXTS // BATCH, seconds)}


def epochs_per_second(
    task: Any, size: str, batches: Any, steps: int, seconds: float, vocab_size: int = VOCAB
) -> float:
    """Time epochs of bert_jax, each of `steps` batches, for about `seconds`."""
    from bert_jax.train import state as state_lib

    _, partitioner, layout, step_fn = make_bert(task, size, vocab_size)
    state = state_lib.create(layout, 0)

    def epoch(number: int) -> None:
        nonlocal state
        for batch in batches.iterate(number * steps, (number + 1) * steps):
            state, metrics = step_fn(state, partitioner.global_batch(batch))
        metrics['loss'].total.block_until_ready()

    return runs_per_second(epoch, seconds)


def time_transformers(size: str, seconds: float) -> dict[str, float]:
    """Time fine-tuning epochs as transformers documents them, for about `seconds`."""
    return {RATE: _texts_per_second(size, seconds, lambda function: function, tuned=False)}


def time_tuned_pytorch(size: str, seconds: float, dtype: str = 'float32') -> dict[str, float]:
    """Time fine-tuning epochs with batches of similar length, for about `seconds`."""
    best = pytorch.highest_rate(
        lambda compile: _texts_per_second(size, seconds, compile, tuned=True, dtype=dtype), dynamic=True
    )
    return {RATE: best['rate'], 'compiled': best['compiled']}


def _texts_per_second(size: str, seconds: float, compile: Any, tuned: bool, dtype: str = 'float32') -> float:
    """Time PyTorch.

    Args:
      size: model size.
      seconds: approximate duration.
      compile: function applied to the function that computes the loss.
      tuned: whether to use fused AdamW and batches of similar length.
      dtype: type of the matrix products.
    """
    import torch

    model, optimizer = pytorch.make_bert('BertForSequenceClassification', size, VOCAB, fused=tuned)
    rows = torch.tensor(make_rows().astype(np.int64))

    @compile
    def compute_loss(tokens: Any, mask: Any, labels: Any) -> Any:
        return model(tokens, attention_mask=mask, labels=labels).loss

    def epoch(number: int) -> None:
        order = torch.randperm(TEXTS, generator=torch.Generator().manual_seed(number))
        if tuned:
            groups = order.split(_GROUP)
            order = torch.cat([group[rows[group, 0].argsort(descending=True)] for group in groups])
        for indices in order.split(BATCH):
            batch = rows[indices]
            lengths = batch[:, 0]
            longest = int(lengths.max())
            mask = (torch.arange(longest) < lengths[:, None]).long()
            with pytorch.autocast(dtype):
                loss = compute_loss(batch[:, HEADER : HEADER + longest], mask, batch[:, 2])
            pytorch.update(model, optimizer, loss)

    return TEXTS * runs_per_second(epoch, seconds)
