"""Exact means, metric files, and the progress line."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp


class Mean(NamedTuple):
    """A sum and the weight it stands for; adding these and dividing once keeps means exact."""

    total: jax.Array
    weight: jax.Array

    def value(self) -> Any:
        return self.total / jnp.maximum(self.weight, 1e-9)


def mean(values: jax.Array, weights: jax.Array) -> Mean:
    """The weighted sum of `values` and the sum of `weights`, which broadcast to one shape."""
    weights = jnp.broadcast_to(weights, values.shape).astype(jnp.float32)
    return Mean((values.astype(jnp.float32) * weights).sum(), weights.sum())


def combine(parts: Iterable[Mapping[str, Mean]]) -> dict[str, float]:
    """The exact mean of each name over all parts, added up in double precision; without those of nothing."""
    totals: dict[str, list[float]] = {}
    for part in jax.device_get([dict(p) for p in parts]):
        for name, m in part.items():
            sums = totals.setdefault(name, [0.0, 0.0])
            sums[0] += float(m.total)
            sums[1] += float(m.weight)
    return {name: total / weight for name, (total, weight) in totals.items() if weight}


def is_loss(name: str) -> bool:
    """Whether a score of this name is the better the lower it is."""
    return name.partition('/')[0].endswith(('loss', 'cross_entropy', 'squared_error'))


def human(n: float) -> str:
    """1234567 as '1.2M'."""
    for unit, size in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if n >= size * 0.99995:
            return f'{n / size:.1f}{unit}'
    return f'{n:.0f}'


def clock(seconds: float) -> str:
    """Seconds as '1:02:03' or '2:03'."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f'{hours}:{m:02}:{s:02}' if hours else f'{m}:{s:02}'


class Writer:
    """Writes metrics to `metrics.jsonl` and TensorBoard events under `workdir`.

    Lines after `step`, left by a run that was killed after its last checkpoint, are dropped first.
    """

    def __init__(self, workdir: pathlib.Path, step: int):
        from tensorboardX import SummaryWriter

        self._path = workdir / 'metrics.jsonl'
        if self._path.exists():
            lines = self._path.read_text(errors='replace').splitlines()
            kept = [line for line in lines if (found := _parsed(line)) and found['step'] <= step]
            temporary = self._path.with_suffix('.tmp')
            temporary.write_text(''.join(line + '\n' for line in kept))
            temporary.replace(self._path)
        self._file = self._path.open('a')
        self._board = SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1 if step else None)

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}  # JSON has no NaN
        self._file.write(json.dumps({'step': step, **finite}) + '\n')
        self._file.flush()
        for name, value in values.items():
            if math.isfinite(value):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _parsed(line: str) -> dict[str, float] | None:
    """The numbers of a line, NaN for none; None if a kill cut it in half, or it is of something else."""
    try:
        found = json.loads(line)
        numbers = [found['step'], *(v for v in found.values() if v is not None)]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
    if not all(isinstance(n, int | float) for n in numbers):
        return None
    return {k: math.nan if v is None else v for k, v in found.items()}


def read(workdir: pathlib.Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl`, in order; what is no number there is NaN."""
    lines = (workdir / 'metrics.jsonl').read_text(errors='replace').splitlines()
    return [found for line in lines if (found := _parsed(line))]


class Progress:
    """One line that shows step, loss, speed and time left; rewritten in place on a terminal."""

    def __init__(self, start: int, total: int, stream: TextIO | None = None):
        self._start, self._total, self._stream = start, total, stream or sys.stderr
        self._began = time.perf_counter()
        self._tty = self._stream.isatty()

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        left = (time.perf_counter() - self._began) / max(1, step - self._start) * (self._total - step)
        parts = [f'step {step:,}/{self._total:,}', f'loss {values["loss"]:.4f}']
        parts.append(f'{human(values["tokens_per_second"])} tokens/s')
        if math.isfinite(values['mfu']):
            parts.append(f'MFU {values["mfu"]:.1%}')
        parts.append(f'left {clock(left)}')
        print(
            ('\r\033[K' if self._tty else '') + '  '.join(parts),
            end='' if self._tty else '\n',
            file=self._stream,
            flush=True,
        )

    def say(self, text: str) -> None:
        """A line of its own among the progress."""
        print(('\r\033[K' if self._tty else '') + text, file=self._stream, flush=True)

    def close(self) -> None:
        if self._tty:
            print(file=self._stream, flush=True)
