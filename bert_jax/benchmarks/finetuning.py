"""Benchmark BERT fine-tuning, in texts per second, against Hugging Face transformers on the same machine.

Both libraries classify the same 4,096 rows, with the lengths of SST-2 sentences, in batches of 32: forward and backward pass
and AdamW, in float32 without dropout. bert_jax groups rows of similar length into batches; transformers pads random batches
to their longest row. Called by `pretraining.compare`.
"""

from typing import Any

import numpy as np

from bert_jax.benchmarks.pretraining import VOCAB, make_bert, make_reference, runs_per_second
from bert_jax.data.rows import HEADER

TEXTS, BATCH, LENGTH = 4096, 32, 64
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
    from bert_jax.train import state as state_lib
    from bert_jax.train.experiment import TrainConfig

    task: Any = classify.Task(classify.Config(labels=('a', 'b')), LabeledConfig(), None)  # type: ignore[arg-type]
    _, partitioner, layout, step_fn = make_bert(task, size)
    state = state_lib.create(layout, 0)
    batches = Batches(make_rows(), task.example, BATCH, 0, length_buckets=TrainConfig().length_buckets)

    def epoch(number: int) -> None:
        nonlocal state
        steps = TEXTS // BATCH
        for batch in batches.iterate(number * steps, (number + 1) * steps):
            state, metrics = step_fn(state, partitioner.global_batch(batch))
        metrics['loss'].total.block_until_ready()

    return {'texts_per_second': TEXTS * runs_per_second(epoch, seconds)}


def time_transformers(size: str, seconds: float) -> dict[str, float]:
    """Time fine-tuning epochs of Hugging Face transformers for about `seconds`."""
    import torch

    model, optimizer = make_reference('BertForSequenceClassification', size)
    found = torch.tensor(make_rows().astype(np.int64))

    def epoch(number: int) -> None:
        order = torch.randperm(TEXTS, generator=torch.Generator().manual_seed(number))
        for indices in order.split(BATCH):
            batch = found[indices]
            lengths = batch[:, 0]
            longest = int(lengths.max())
            mask = (torch.arange(longest) < lengths[:, None]).long()
            optimizer.zero_grad()
            tokens = batch[:, HEADER : HEADER + longest]
            model(tokens, attention_mask=mask, labels=batch[:, 2]).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return {'texts_per_second': TEXTS * runs_per_second(epoch, seconds)}
