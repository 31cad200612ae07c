"""Compare the training loop, with its data, metrics and checkpoints, with the bare train step."""

import logging
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_jax.benchmarks import masked_rows, processes, throughput
from bert_jax.core import goodput, metrics
from bert_jax.core.errors import UserError

_ROOT = pathlib.Path(__file__).parents[2]
_WORDS, _LOG_EVERY = 2000, 10
_SKIPPED = 2  # lines of metrics at the start, while the first batches are made
_BATCHES = 4  # number of different batches in the text


def measure(
    device: throughput.Device,
    size: str,
    length: int,
    out: pathlib.Path | None,
    *,
    rows: int = 0,
    model: Mapping[str, Any] | None = None,
    seconds: float = 20,
    limit: float = 300,
) -> dict[str, Any]:
    """Time steps of `bert_jax.bin.train` and the bare step with the same model and batch, and print both.

    Args:
      device: device to measure on.
      size: size of BERT.
      length: number of tokens in a row.
      out: file of JSON lines, to which the result is appended; None writes no file.
      rows: number of rows in the batch; 0 depends on size and length.
      model: further settings of the model.
      seconds: approximate duration of the steps of the loop.
      limit: seconds after which either process is killed.

    Returns:
      `step_seconds` of the bare step, `loop_seconds`, the median over the lines of metrics, `share`, the former divided by
      the latter, and `overhead`, the seconds of the loop in each category of `goodput` that steps do not contain.

    Raises:
      UserError: if either process fails, or there are several devices, all of which the training would use.
    """
    if device.num_devices > 1:
        raise UserError(
            f'--loop needs a single device, but JAX finds {device.num_devices}. On GPUs, set CUDA_VISIBLE_DEVICES=0.'
        )
    rows = rows or throughput.first_rows(size, length, device.platform)
    settings = {'dtype': device.dtype, **(model or {})}
    case = throughput.Case(
        'bert_jax', size, length, 'full', 0.0, rows, device.platform, settings['dtype'], settings, min(seconds, 8)
    )  # fmt: skip
    bare = throughput.time_case(case, device, limit)
    if 'error' in bare:
        raise UserError(f'The bare step failed ({bare["error"]}). Choose a smaller --batch.')
    steps = (_SKIPPED + max(3, round(seconds / bare['step_seconds'] / _LOG_EVERY))) * _LOG_EVERY
    speed, overhead = _run_loop(case, steps, device, limit)
    loop_seconds = rows * length / speed
    kept = ('size', 'length', 'rows', 'model', 'device', 'step_seconds', 'tokens_per_second')
    result = {
        'benchmark': 'loop',
        **{key: bare[key] for key in kept},
        'loop_seconds': loop_seconds,
        'share': bare['step_seconds'] / loop_seconds,
        'steps': steps,
        'overhead': overhead,
    }
    if out is not None:
        throughput.append(out, result)
    print(
        f'{size} {length}, {rows} rows: bare step {1e3 * bare["step_seconds"]:,.1f} ms, step of the loop '
        f'{1e3 * loop_seconds:,.1f} ms, share {result["share"]:.1%}; saving a checkpoint took '
        f'{overhead.get("checkpoints", 0):.1f} s'
    )
    return result


def _run_loop(
    case: throughput.Case, steps: int, device: throughput.Device, limit: float
) -> tuple[float, dict[str, float]]:
    """Train on random text; return the median of the tokens per second, and the seconds of overhead by category."""
    with tempfile.TemporaryDirectory() as folder:
        workdir, text = pathlib.Path(folder, 'run'), pathlib.Path(folder, 'text.txt')
        text.write_text(_make_text(case.rows * case.length * _BATCHES))
        _train(case, steps, text, workdir, device, limit)
        lines = [line for line in metrics.read(workdir) if 'tokens_per_second' in line][_SKIPPED:]
        overhead = goodput.read(workdir)['starts'][-1]['overhead']
    return statistics.median(line['tokens_per_second'] for line in lines), overhead


def _make_text(tokens: int) -> str:
    """Make one document without sentences, of which nearly all rows are full, with at least this number of words."""
    rng = np.random.default_rng(0)
    letters = np.array(list('abcdefghijklmnopqrstuvwxyz'))
    words = [''.join(rng.choice(letters, 5)) for _ in range(_WORDS)]
    return ' '.join(words[i] for i in rng.integers(0, _WORDS, tokens)) + '\n'


def _train(
    case: throughput.Case,
    steps: int,
    text: pathlib.Path,
    workdir: pathlib.Path,
    device: throughput.Device,
    limit: float,
) -> None:
    """Run the train command on a text."""
    settings = {
        'task.sentence_objective': 'none',
        'task.short_sequence_rate': 0,
        'data.sources': text,
        'data.length': case.length,
        'data.validation_fraction': 0,
        'tokenizer.vocab_size': 4000,
        'train.phases': '()',
        'train.steps': steps,
        'train.batch_size': case.rows,
        'train.log_every': _LOG_EVERY,
        'train.workers': 0 if device.platform == 'cpu' else 6,
        'train.prng': 'rbg',
        'optim.warmup': 0,
        'optim.bias_correction': 'true',
        'checkpoint.every': steps // 2,
        'model.dropout': 0,
        'model.attention_dropout': 0,
        'model.vocab_size': masked_rows.VOCAB,
        'model.max_positions': max(512, case.length),
        **{f'model.{key}': value for key, value in case.model.items()},
    }
    command = [
        sys.executable, '-m', 'bert_jax.bin.train', f'--config=configs/pretrain/bert.py:{case.size}', f'--workdir={workdir}',
        *(f'--config.{key}={value}' for key, value in settings.items()),
    ]  # fmt: skip
    environment = processes.make_environment(device.environment)
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            errors='replace',
            timeout=limit,
        )
    except subprocess.TimeoutExpired as e:
        raise UserError(f'The training took longer than {limit:.0f} seconds. Raise --limit.') from e
    if done.returncode:
        logging.warning('%s', done.stderr[-4000:])
        reason = (done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]
        raise UserError(f'The training failed ({reason}). Correct the cause.')
