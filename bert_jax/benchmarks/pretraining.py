"""Benchmark a BERT pretraining step against Hugging Face transformers on the same machine.

Both libraries run the forward and backward pass of masked LM and next sentence prediction, and AdamW, in float32 without
dropout, with a vocabulary of 30,522 and rows of 128 tokens, 20 of them predicted. Each timing runs in its own process, so
that the libraries share neither threads nor memory, and they alternate, so that a drift of the machine affects both.
Transformers is timed once more with an allocator that keeps freed memory, as in the train and eval commands of bert_jax;
users can set this by environment variables, but few do.
"""

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bert_jax.core.errors import UserError

VOCAB, LENGTH, PREDICTIONS = 30522, 128, 20
ROWS = {'tiny': 32, 'mini': 32, 'small': 32, 'medium': 16, 'base': 8, 'large': 4}
_KEEPS_MEMORY = {'MALLOC_ARENA_MAX': '1', 'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '-1'}
# Timing function of each library, and environment variables of its process.
_LIBRARIES: dict[str, tuple[str, dict[str, str]]] = {
    'bert_jax': ('time_bert_jax', {}),
    'transformers': ('time_transformers', {}),
    'transformers, memory kept': ('time_transformers', _KEEPS_MEMORY),
}
# Result to compare for each benchmark. A benchmark is a module of this package with the timing functions.
_RESULTS = {'pretraining': 'seconds', 'finetuning': 'texts_per_second', 'generation': 'tokens_per_second'}


def compare(
    sizes: Sequence[str], rounds: int, seconds: float, include_reference: bool, kind: str = 'pretraining'
) -> dict[str, Any]:
    """Time the libraries alternately for each size, and print a table.

    Args:
      sizes: model sizes, such as 'tiny'.
      rounds: number of timings per library; the median of each result is reported.
      seconds: approximate duration of one timing.
      include_reference: whether to time Hugging Face transformers too, if it is installed.
      kind: benchmark, 'pretraining', 'finetuning' or 'generation'.

    Returns:
      Results by size and library.
    """
    from bert_jax.modeling import gpt

    key = _RESULTS[kind]
    known: Any = gpt.SIZES if kind == 'generation' else ROWS
    libraries = list(_LIBRARIES) if include_reference and _has_reference() else ['bert_jax']
    results: dict[str, Any] = {}
    for size in sizes:
        if size not in known:
            raise UserError(f'There is no size {size!r}. Choose from {", ".join(known)}.')
        runs: dict[str, list[dict[str, float]]] = {library: [] for library in libraries}
        for _ in range(rounds):
            for library in libraries:
                runs[library].append(_time_in_process(kind, library, size, seconds))
        results[size] = {
            library: {k: statistics.median(x[k] for x in r) for k in r[0]} | {'runs': [x[key] for x in r]}
            for library, r in runs.items()
        }
        print(_format(size, results[size], key), flush=True)
    return results


def _has_reference() -> bool:
    """Return whether PyTorch and transformers are installed, and print a note if not."""
    is_installed = all(importlib.util.find_spec(name) for name in ('torch', 'transformers'))
    if not is_installed:
        print('PyTorch and transformers are not installed; timing bert_jax only.')
    return is_installed


def _format(size: str, result: dict[str, Any], key: str) -> str:
    """Format the results of one size: one line per library, and one for the details of bert_jax."""
    ours, lines = result['bert_jax'], []
    for library, timed in result.items():
        if key == 'seconds':
            slowdown = timed[key] / ours[key]
            line = f'{size:6} {ROWS[size]}x{LENGTH}  {library:25}  {1e3 * timed[key]:6.0f} ms'
            line += f'  {ROWS[size] * LENGTH / timed[key]:8,.0f} tokens/s'
        else:
            slowdown = ours[key] / timed[key]
            line = f'{size:6} {library:25}  {timed[key]:8,.0f} {key.partition("_")[0]}/s'
        lines.append(line if timed is ours else f'{line}  {slowdown:5.1f} times slower')
    if 'forward' in ours:
        forward, backward, update = (f'{1e3 * ours[k]:.0f} ms' for k in ('forward', 'backward', 'update'))
        lines.append(
            f'{"":16}forward {forward}, backward {backward}, AdamW {update}; matrix products alone '
            f'would take {1e3 * ours["flops"] / ours["peak_flops"]:.0f} ms at {ours["peak_flops"] / 1e9:.0f} GFLOP/s, the speed of a large product'
        )
    if 'token_to_read_ratio' in ours:
        token, read = (1e3 * ours[key] for key in ('token_seconds', 'read_seconds'))
        lines.append(
            f'{size:6} a decoding step for all prompts takes {token:.1f} ms, reading the weights {read:.1f} ms; '
            f'median ratio {ours["token_to_read_ratio"]:.2f}'
        )
    return '\n'.join(lines)


def _time_in_process(kind: str, library: str, size: str, seconds: float) -> dict[str, float]:
    """Run one timing function in its own process."""
    function, environment = _LIBRARIES[library]
    command = [
        sys.executable,
        '-c',
        f'import json; from bert_jax.benchmarks import {kind}; print(json.dumps({kind}.{function}({size!r}, {seconds})))',
    ]
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment, 'PYTHONPATH': path}
    )
    if done.returncode:
        lines = [f'exit status {done.returncode}', *done.stderr.strip().splitlines()]
        if done.returncode < 0:
            lines.append(f'killed by {signal.Signals(-done.returncode).name}')
        raise UserError(
            f'Timing {library} at size {size} failed ({lines[-1]}). Correct the cause, or choose another size.'
        )
    return json.loads(done.stdout.splitlines()[-1])


def _median_time(step: Callable[[], Any], seconds: float) -> float:
    """Median time of a step, over about `seconds` but at least five steps, after two warm-up steps."""
    step()
    step()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def runs_per_second(run: Callable[[int], Any], seconds: float) -> float:
    """Measure the number of runs per second, over about `seconds` but at least one run, after a warm-up run.

    `run` takes the index of the run: 0 for the warm-up, then 1, 2, ...
    """
    run(0)
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < seconds:
        count += 1
        run(count)
    return count / (time.perf_counter() - start)


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


def make_bert(task: Any, size: str) -> tuple[Any, Any, Any, Any]:
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
    model = bert.Config(size=size, vocab_size=VOCAB, dropout=0.0, attention_dropout=0.0)
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
    apply = jax.jit(lambda s: apply_gradients(layout.tx, s.params, s.opt_state, s.params))
    total = _median_time(step, seconds)
    forward_time = _median_time(lambda: jax.block_until_ready(forward(state.params)), seconds / 4)
    update_time = _median_time(lambda: jax.block_until_ready(apply(state)), seconds / 4)
    return {
        'seconds': total,
        'forward': forward_time,
        'backward': total - forward_time - update_time,
        'update': update_time,
        'flops': 3 * task.flops(model, batch),
        'peak_flops': runtime.peak_flops(),
    }


def make_reference(class_name: str, size: str) -> tuple[Any, Any]:
    """Build a Hugging Face model of the class `class_name`, without dropout, and its optimizer."""
    import torch
    import transformers

    from bert_jax.modeling.bert import SIZES

    layers, width, heads, mlp = SIZES[size]
    config = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=mlp,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = getattr(transformers, class_name)(config)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)


def time_transformers(size: str, seconds: float) -> dict[str, float]:
    """Time a train step of Hugging Face transformers for about `seconds`."""
    import torch

    model, optimizer = make_reference('BertForPreTraining', size)
    batch = {k: torch.tensor(v) for k, v in _make_batch(size).items()}
    labels = torch.full((ROWS[size], LENGTH), -100).scatter(
        1, batch['positions'].long(), batch['labels'].long()
    )

    def step() -> None:
        optimizer.zero_grad()
        loss = model(
            batch['tokens'].long(), attention_mask=batch['valid'].long(), token_type_ids=batch['segments'].long(),
            labels=labels, next_sentence_label=batch['next_sentence_label'].long(),
        ).loss  # fmt: skip
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return {'seconds': _median_time(step, seconds)}
