"""Curves of runs as pictures."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.evals.runs import Run

_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric over the steps, its mean over runs that are repetitions."""

    label: str
    runs: Sequence[Run]
    key: str

    def mean(self, kind: str) -> tuple[list[float], list[float]]:
        """Steps that all runs have, and the means, of `train` or `evals`."""
        lines = [
            {line['step']: line[self.key] for line in getattr(r, kind) if self.key in line} for r in self.runs
        ]
        steps = sorted(set.intersection(*map(set, lines)))
        return steps, [float(np.mean([found[s] for found in lines])) for s in steps]


def figure(curves: Sequence[Curve], title: str) -> Any:
    """Curves against steps: training thin and smoothed thick, evaluation as dots."""
    fig, axes = _pyplot().subplots(figsize=(8, 4.5), layout='constrained')
    _draw(axes, zip(curves, itertools.cycle(_COLORS), strict=False))
    axes.set(title=title, xlabel='step', ylabel='loss (nats)')
    axes.legend(fontsize='small')
    return fig


def panels(groups: Mapping[str, Sequence[Curve]]) -> Any:
    """One small picture for each title, with one legend: a label has the same colour in all."""
    labels = dict.fromkeys(curve.label for curves in groups.values() for curve in curves)
    colors = dict(zip(labels, itertools.cycle(_COLORS), strict=False))
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    fig, grid = _pyplot().subplots(
        lines, columns, figsize=(4 * columns, 0.5 + 2.6 * lines), layout='constrained', squeeze=False
    )
    for axes, (title, curves) in zip(grid.flat, groups.items(), strict=False):
        _draw(axes, [(curve, colors[curve.label]) for curve in curves])
        axes.set_title(title, fontsize='medium')
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    fig.supxlabel('step')
    fig.supylabel('loss')
    handles = {
        label: handle
        for axes in grid.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    fig.legend(handles.values(), handles, loc='outside upper center', ncols=4, fontsize='small')
    return fig


def _draw(axes: Any, curves: Iterable[tuple[Curve, str]]) -> None:
    for curve, color in curves:
        steps, values = curve.mean('train')
        axes.plot(steps, values, color=color, alpha=0.2, linewidth=1)
        label = f'{curve.label} (training, smoothed)'
        axes.plot(steps, smooth(np.array(values)), color=color, linewidth=2, label=label)
        steps, values = curve.mean('evals')
        if steps:
            label = f'{curve.label} (held out)'
            axes.plot(steps, values, 'o', color=color, markeredgecolor='white', label=label)
    axes.grid(alpha=0.3)


def smooth(values: np.ndarray) -> np.ndarray:
    """A centred running mean over a twentieth of the curve."""
    if not len(values):
        return values
    width = len(values) // 20
    kernel = np.ones(2 * width + 1)
    return np.convolve(values, kernel, 'same') / np.convolve(np.ones(len(values)), kernel, 'same')


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    return pyplot
