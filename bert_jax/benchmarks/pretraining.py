"""Benchmark a BERT pretraining step in float32, against PyTorch on the same machine.

A step is the forward and backward pass of masked LM and next-sentence prediction, and AdamW, without dropout, with a
vocabulary of 30,522 and full rows of 128 tokens, 20 of them predicted. Called by `comparison.compare`.
"""

from typing import Any

from bert_jax.benchmarks import pytorch
from bert_jax.benchmarks.timing import median_time

VOCAB, LENGTH, PREDICTIONS = 30522, 128, 20
SIZES = ROWS = {'tiny': 32, 'mini': 32, 'small': 32, 'medium': 16, 'base': 8, 'large': 4}
RATE = 'tokens_per_second'


def _tokens(size: str) -> int:
    return ROWS[size] * LENGTH


def _make_batch(size: str) -> dict[str, Any]:
    """Make a batch of random full rows with 20 predicted positions each."""
    import numpy as np

    rng, rows = np.random.default_rng(0), ROWS[size]
    tokens = rng.integers(1000, VOCAB, (rows, LENGTH), dtype=np.int32)
    positions = np.sort(
        rng.permuted(np.tile(np.arange(1, LENGTH - 1), (rows, 1)), axis=1)[:, :PREDICTIONS], axis=1
    ).astype(np.int32)
    return {
        'tokens': tokens,
        'segments': np.tile((np.arange(LENGTH) >= LENGTH // 2).astype(np.int32), (rows, 1)),
        'valid': np.ones((rows, LENGTH), bool),
        'positions': positions,
        'labels': np.take_along_axis(tokens, positions, 1),
        'weights': np.ones((rows, PREDICTIONS), np.float32),
        'next_sentence_label': rng.integers(0, 2, rows, dtype=np.int32),
        'row_weight': np.ones(rows, np.float32),
    }


def make_bert(task: Any, size: str, vocab_size: int = VOCAB) -> tuple[Any, Any, Any, Any]:
    """Build a BERT of bert_jax without dropout for one device.

    Returns:
      The model config, the partitioner, the `Layout` of the train state, and the train step.
    """
    import jax

    from bert_jax import optim
    from bert_jax.core import partitioning, runtime
    from bert_jax.modeling import bert
    from bert_jax.train.step import make_train_step

    runtime.configure_process()
    model = bert.Config(size=size, vocab_size=vocab_size, dropout=0.0, attention_dropout=0.0)
    partitioner = partitioning.make(partitioning.MeshConfig(), jax.devices()[:1])
    return model, partitioner, *make_train_step(task, model, optim.OptimConfig(warmup=0), 1000, partitioner)


def time_bert_jax(size: str, seconds: float) -> dict[str, float]:
    """Time a train step of bert_jax for about `seconds`, and its parts for a quarter of that each."""
    import jax

    from bert_jax.core import runtime
    from bert_jax.data import tokenizer
    from bert_jax.data.prepare import TextConfig
    from bert_jax.modeling import module
    from bert_jax.tasks import mlm
    from bert_jax.train import state as state_lib
    from bert_jax.train.step import apply_gradients

    task = mlm.Task(mlm.Config(), TextConfig(), tokenizer.from_vocab(tokenizer.SPECIAL))
    model, partitioner, layout, step_fn = make_bert(task, size)
    state = state_lib.create(layout, 0)
    batch = _make_batch(size)
    on_device = partitioner.global_batch(batch)

    def step() -> None:
        nonlocal state
        state, metrics = step_fn(state, on_device)
        metrics['loss'].total.block_until_ready()

    forward = jax.jit(lambda p: task.loss(module.merge(layout.graph, p), on_device, None).losses)
    # The values of the gradient do not affect the time.
    apply = jax.jit(lambda s: apply_gradients(layout.tx, s.params, s.opt_state, s.params, {}))
    total = median_time(step, seconds)
    forward_time = median_time(lambda: jax.block_until_ready(forward(state.params)), seconds / 4)
    update_time = median_time(lambda: jax.block_until_ready(apply(state)), seconds / 4)
    return {
        RATE: _tokens(size) / total,
        'seconds': total,
        'forward': forward_time,
        'backward': total - forward_time - update_time,
        'update': update_time,
        'flops': 3 * task.flops(model, batch),
        'peak_flops': runtime.peak_flops(),
    }


def format_details(result: dict[str, float]) -> str:
    """Describe the parts of a step of bert_jax, and its lower bound."""
    parts = {'forward': 'forward', 'backward': 'backward', 'AdamW': 'update'}
    times = ', '.join(f'{name} {1e3 * result[key]:.0f} ms' for name, key in parts.items())
    bound, peak = result['flops'] / result['peak_flops'], result['peak_flops']
    return (
        f'{times}; matrix products alone would take {1e3 * bound:.0f} ms ({bound / result["seconds"]:.0%} of the step) '
        f'at {peak / 1e9:.0f} GFLOP/s, the speed of a large product'
    )


def time_transformers(size: str, seconds: float) -> dict[str, float]:
    """Time a train step as transformers documents it, for about `seconds`."""
    import torch

    model, optimizer = pytorch.make_bert('BertForPreTraining', size, VOCAB)
    batch = _torch_batch(size)
    labels = torch.full((ROWS[size], LENGTH), -100).scatter(1, batch['positions'], batch['labels'])

    def step() -> None:
        loss = model(
            batch['tokens'], attention_mask=batch['valid'], token_type_ids=batch['segments'], labels=labels,
            next_sentence_label=batch['next_sentence_label'],
        ).loss  # fmt: skip
        pytorch.update(model, optimizer, loss)
        loss.item()

    time = median_time(step, seconds)
    return {RATE: _tokens(size) / time, 'seconds': time}


def time_tuned_pytorch(size: str, seconds: float, dtype: str = 'float32') -> dict[str, float]:
    """Time a train step that computes the vocabulary logits of the predicted positions alone, for about `seconds`."""
    import torch

    batch = _torch_batch(size)
    rows = torch.arange(ROWS[size])[:, None]

    def measure(compile: Any) -> float:
        model, optimizer = pytorch.make_bert('BertForPreTraining', size, VOCAB, fused=True)

        @compile
        def compute_loss() -> Any:
            out = model.bert(batch['tokens'], attention_mask=batch['valid'], token_type_ids=batch['segments'])
            logits = model.cls.predictions(out.last_hidden_state[rows, batch['positions']])
            next_sentence = model.cls.seq_relationship(out.pooler_output)
            cross_entropy = torch.nn.functional.cross_entropy
            masked_loss = cross_entropy(logits.flatten(0, 1), batch['labels'].flatten())
            return masked_loss + cross_entropy(next_sentence, batch['next_sentence_label'])

        def step() -> None:
            with pytorch.autocast(dtype):
                loss = compute_loss()
            pytorch.update(model, optimizer, loss)
            loss.item()

        return _tokens(size) / median_time(step, seconds)

    best = pytorch.highest_rate(measure)
    return {RATE: best['rate'], 'seconds': _tokens(size) / best['rate'], 'compiled': best['compiled']}


def _torch_batch(size: str) -> dict[str, Any]:
    import torch

    return {k: torch.tensor(v).long() for k, v in _make_batch(size).items()}
