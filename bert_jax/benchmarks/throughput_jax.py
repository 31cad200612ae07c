"""Time a train step of bert_jax on one device, at a fixed batch. Called in processes by `throughput` and `loop`."""

import math
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from bert_jax.benchmarks import masked_rows, trace
from bert_jax.benchmarks.timing import time_steps

_PROFILED_STEPS = 3


def describe_device() -> dict[str, Any]:
    """Describe the devices of JAX: their platform, kind, peak speed of one in FLOP/s, and number."""
    import jax

    from bert_jax.core import runtime

    count, device = jax.device_count(), jax.devices()[0]
    return {
        'platform': device.platform,
        'kind': device.device_kind,
        'peak_flops': runtime.peak_flops() / count,
        'count': count,
    }


def model_config(case: Mapping[str, Any]) -> Any:
    """Return the architecture of a `throughput.Case`."""
    from bert_jax.core import config
    from bert_jax.modeling import bert

    settings = {
        'size': case['size'],
        'vocab_size': masked_rows.VOCAB,
        'max_positions': max(512, case['length']),
        'dropout': case['dropout'],
        'attention_dropout': 0.0,
        'dtype': case['dtype'],
    }
    return config.build_section(bert.Config, {**settings, **case['model']}, 'model')


def time_bert_jax(case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Time a train step.

    Args:
      case: fields of a `throughput.Case`.

    Yields:
      The results of `time_steps`, the loss of the last step, the seconds of the first step, which compiles, and the peak
      memory in bytes; with `case['profile']`, a second time with the profile of the step.
    """
    from bert_jax.core import runtime

    runtime.configure_process()
    import jax

    from bert_jax import optim
    from bert_jax.core import partitioning
    from bert_jax.train import state as state_lib
    from bert_jax.train.step import make_train_step

    task = masked_rows.make_task(case['kind'])
    device = jax.devices()[0]
    partitioner = partitioning.make(partitioning.MeshConfig(), [device])
    layout, step_fn = make_train_step(
        task, model_config(case), optim.OptimConfig(warmup=0), 10_000, partitioner, prng='rbg'
    )
    state = state_lib.create(layout, 0)
    batch = partitioner.global_batch(masked_rows.make_batch(case['kind'], case['rows'], case['length']))
    metrics: Any = None

    def run_steps(steps: int) -> None:
        nonlocal state, metrics
        for _ in range(steps):
            state, metrics = step_fn(state, batch)
        jax.block_until_ready((state, metrics))

    start = time.perf_counter()
    run_steps(1)
    first = time.perf_counter() - start
    result = time_steps(run_steps, case['seconds'])
    loss = float(metrics['loss'].value())
    if not math.isfinite(loss):
        raise ValueError(f'the loss is {loss}')
    stats = device.memory_stats() or {}
    result |= {'loss': loss, 'first_step_seconds': first, 'peak_memory': stats.get('peak_bytes_in_use')}
    yield result
    if case['profile']:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                run_steps(_PROFILED_STEPS)
            yield {**result, 'operations': trace.summarize(pathlib.Path(folder), _PROFILED_STEPS)}
