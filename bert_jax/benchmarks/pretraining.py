"""How fast a BERT pretraining step is, beside Hugging Face transformers on the same machine.

Both sides do masked LM and next sentence forward, backward and AdamW, float32, dropout off, 30,522
words, rows of 128 tokens with 20 predicted positions. Each timing is a process of its own: the two
runtimes do not share threads or memory, and they take turns, so that a drift of the machine meets both.
Transformers is timed once more with freed memory kept, as our commands that train and score do: a user can
have it by environment variables, and few do.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from bert_jax.core.errors import UserError

VOCAB, LENGTH, PREDICTIONS = 30522, 128, 20
ROWS = {'tiny': 32, 'mini': 32, 'small': 32, 'medium': 16, 'base': 8, 'large': 4}
_KEEPS_MEMORY = {'MALLOC_ARENA_MAX': '1', 'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': '-1'}
# What is timed: a function `time_ours` or `time_theirs`, and the environment of its process.
_SIDES: dict[str, tuple[str, dict[str, str]]] = {
    'bert_jax': ('time_ours', {}),
    'transformers': ('time_theirs', {}),
    'transformers, memory kept': ('time_theirs', _KEEPS_MEMORY),
}


# By what is timed: the module with the two functions, and the figure that they return.
_KINDS = {
    'pretraining': ('speed', 'seconds'),
    'finetuning': ('finetuning_speed', 'texts_per_second'),
    'generation': ('generation_speed', 'tokens_per_second'),
}


def compare(
    sizes: Sequence[str], rounds: int, seconds: float, reference: bool, kind: str = 'pretraining'
) -> dict[str, Any]:
    """Times each size on both sides in turn, prints a table, returns the figures.

    `kind` is pretraining, finetuning or generation.
    """
    from bert_jax.modeling import gpt

    module, key = _KINDS[kind]
    known: Any = gpt.SIZES if kind == 'generation' else ROWS
    sides = list(_SIDES) if reference and _reference_is_there() else ['bert_jax']
    results: dict[str, Any] = {}
    for size in sizes:
        if size not in known:
            raise UserError(f'There is no size {size!r}: choose from {", ".join(known)}.')
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side in sides:
                runs[side].append(_time_in_process(module, side, size, seconds))
        results[size] = {
            side: {**found[0], key: statistics.median(r[key] for r in found), 'runs': [r[key] for r in found]}
            for side, found in runs.items()
        }
        print(
            _text(size, results[size]) if key == 'seconds' else _rates(size, results[size], key), flush=True
        )
    return results


def _rates(size: str, result: dict[str, Any], key: str) -> str:
    """The figures of one size that are so many a second, a line a side."""
    rate = result['bert_jax'][key]
    lines = []
    for side, timed in result.items():
        line = f'{size:6} {side:25}  {timed[key]:8,.0f} {key.partition("_")[0]}/s'
        lines.append(line + ('' if timed[key] == rate else f'  {rate / timed[key]:5.1f} times as slow'))
    if 'times_reading' in (ours := result['bert_jax']):
        token, read = (1e3 * ours[key] for key in ('token_seconds', 'read_seconds'))
        lines.append(
            f'{size:6} a token of all rows takes {token:.1f} ms, reading the weights once {read:.1f} ms, '
            f'in turn {ours["times_reading"]:.2f} times as long'
        )
    return '\n'.join(lines)


def _reference_is_there() -> bool:
    there = all(importlib.util.find_spec(name) for name in ('torch', 'transformers'))
    if not there:
        print('PyTorch and transformers are not installed: timing bert_jax alone')
    return there


def _text(size: str, result: dict[str, Any]) -> str:
    """The figures of one size, a line a side."""
    tokens, ours = ROWS[size] * LENGTH, result['bert_jax']
    lines = []
    for side, timed in result.items():
        line = f'{size:6} {ROWS[size]}x{LENGTH}  {side:25}'
        line += f'  {1e3 * timed["seconds"]:6.0f} ms  {tokens / timed["seconds"]:8,.0f} tokens/s'
        lines.append(
            line + ('' if timed is ours else f'  {timed["seconds"] / ours["seconds"]:5.1f} times as long')
        )
    parts = {k: f'{1e3 * ours[k]:.0f} ms' for k in ('forward', 'backward', 'update')}
    lines.append(
        f'{"":16}forward {parts["forward"]}, backward {parts["backward"]}, AdamW {parts["update"]}; the matrix products '
        f'alone take {1e3 * ours["flops"] / ours["peak"]:.0f} ms at the {ours["peak"] / 1e9:.0f} GFLOP/s of a large one'
    )
    return '\n'.join(lines)


def _time_in_process(module: str, side: str, size: str, seconds: float) -> dict[str, float]:
    function, environment = _SIDES[side]
    command = [
        sys.executable,
        '-c',
        f'import json; from bert_jax.evals import {module}; print(json.dumps({module}.{function}({size!r}, {seconds})))',
    ]
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment, 'PYTHONPATH': path}
    )
    if done.returncode:
        raise UserError(f'timing {side} {size} failed: {done.stderr.strip().splitlines()[-1]}')
    return json.loads(done.stdout.splitlines()[-1])


def _median_of(step: Any, seconds: float) -> float:
    """Median time of a step over about `seconds`, at least five, after two to warm up."""

    step()
    step()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _batch(size: str) -> dict[str, Any]:
    """Random full rows, 20 positions to predict in each."""
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
        'next': rng.integers(0, 2, rows, dtype=np.int32),
        'row_weight': np.ones(rows, np.float32),
    }


def time_ours(size: str, seconds: float) -> dict[str, float]:
    from bert_jax.core import runtime

    runtime.prepare_process()
    import jax

    from bert_jax import optim
    from bert_jax.core import partitioning
    from bert_jax.modeling import bert, module
    from bert_jax.modeling.bert import BertForPretraining
    from bert_jax.tasks import mlm
    from bert_jax.train import state as state_lib
    from bert_jax.train.step import jit_train_step, update

    task = mlm.Task.__new__(mlm.Task)  # the step needs no tokenizer
    task.config = mlm.Config()
    model = bert.Config(size=size, vocab_size=VOCAB, dropout=0.0, attention_dropout=0.0)
    config = optim.OptimConfig(warmup=0)
    partitioner = partitioning.make(partitioning.MeshConfig(), jax.devices()[:1])
    tx = optim.make(config, 1000)
    make = lambda rngs: BertForPretraining(model, rngs)  # noqa: E731
    layout = state_lib.layout(make, tx, partitioner)
    state = state_lib.create(make, tx, layout, 0)
    step_fn = jit_train_step(
        task,
        layout,
        partitioner,
        tx,
        schedule=optim.schedule(config, 1000),
        seed=0,
        dropout=False,
        accumulate=1,
    )
    batch = _batch(size)
    on_device = partitioner.global_batch(batch)

    def step() -> None:
        nonlocal state
        state, metrics = step_fn(state, on_device)
        metrics['loss'].total.block_until_ready()

    @jax.jit
    def forward(params: module.Params) -> Any:
        return [
            t.total for t in task.loss(module.merge(layout.graph, params), on_device, None).terms.values()
        ]

    apply = jax.jit(lambda s: update(tx, s.params, s.opt_state, s.params))  # any gradient takes as long
    whole = _median_of(step, seconds)
    first = _median_of(lambda: jax.block_until_ready(forward(state.params)), seconds / 4)
    last = _median_of(lambda: jax.block_until_ready(apply(state)), seconds / 4)
    return {
        'seconds': whole,
        'forward': first,
        'backward': whole - first - last,
        'update': last,
        'flops': 3 * task.flops(model, batch),
        'peak': runtime.peak_flops(),
    }


def reference(kind: str, size: str) -> tuple[Any, Any]:
    """A model of transformers, without dropout, and its optimizer."""
    import torch
    import transformers

    from bert_jax.modeling.bert import SIZES

    layers, width, heads, mlp = SIZES[size]
    config = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=mlp,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = getattr(transformers, kind)(config)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)


def time_theirs(size: str, seconds: float) -> dict[str, float]:
    import torch

    model, optimizer = reference('BertForPreTraining', size)
    batch = {k: torch.tensor(v) for k, v in _batch(size).items()}
    labels = torch.full((ROWS[size], LENGTH), -100).scatter(
        1, batch['positions'].long(), batch['labels'].long()
    )

    def step() -> None:
        optimizer.zero_grad()
        loss = model(
            batch['tokens'].long(), attention_mask=batch['valid'].long(), token_type_ids=batch['segments'].long(),
            labels=labels, next_sentence_label=batch['next'].long(),
        ).loss  # fmt: skip
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return {'seconds': _median_of(step, seconds)}
