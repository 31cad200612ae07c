"""Curves of runs as pictures."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.experiments.runs import Run

_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')


@dataclasses.dataclass(frozen=True)
class Curve:
    """One metric over the steps, of runs that are repetitions."""

    label: str
    runs: Sequence[Run]
    key: str

    def values(self, kind: str) -> tuple[list[float], np.ndarray]:
        """Steps S that all n runs with lines of `train` or `evals` have, and the values [n, S]."""
        lines = [
            {line['step']: line[self.key] for line in getattr(r, kind) if self.key in line} for r in self.runs
        ]
        lines = [found for found in lines if found]
        steps = sorted(set.intersection(*map(set, lines))) if lines else []
        return steps, np.array([[found[s] for s in steps] for found in lines]).reshape(len(lines), len(steps))


def figure(curves: Sequence[Curve], title: str) -> Any:
    """Curves against steps: training as it is thin and smoothed thick, evaluation as dots.

    Of repetitions the mean, with a standard deviation of the smoothed curves on both sides.
    """
    fig, axes = pyplot().subplots(figsize=(8, 4.5), layout='constrained')
    _draw(axes, zip(curves, itertools.cycle(_COLORS), strict=False))
    axes.set(title=title, xlabel='step', ylabel='loss (nats)')
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize='small')
    return fig


def panels(groups: Sequence[tuple[str, Sequence[Curve]]]) -> Any:
    """One small picture of a metric for each (title, curves), with one legend: a label has the same colour in all."""
    labels = dict.fromkeys(curve.label for _, curves in groups for curve in curves)
    colors = dict(zip(labels, itertools.cycle(_COLORS), strict=False))
    fig, grid = _grid(len(groups), 3.6, 2.6, columns=4)
    for axes, (title, curves) in zip(grid, groups, strict=True):
        _draw(axes, [(curve, colors[curve.label]) for curve in curves], counted=False)
        n = max(len(curve.runs) for curve in curves)
        axes.set_title(f'{title} (n = {n})', fontsize='medium')
        axes.set_ylabel(curves[0].key.replace('_', ' '))
    fig.supxlabel('step')
    _legend(fig, grid, columns=2)
    return fig


def amounts(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float | str, list[float]]]]], xlabel: str
) -> Any:
    """A panel for each title and in it a line for each label, through the means of points (x, values of n runs), bars are
    standard deviations; x is logarithmic. Where x are names, points stand side by side."""
    labels = dict.fromkeys(label for curves in panels.values() for label in curves)
    colors = dict(zip(labels, itertools.cycle(_COLORS), strict=False))
    fig, grid = _grid(len(panels), 4.2, 3)
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        n = max(len(values) for points in curves.values() for _, values in points)
        names = list(dict.fromkeys(x for points in curves.values() for x, _ in points if isinstance(x, str)))
        for i, (label, points) in enumerate(curves.items()):
            aside = 0.6 * ((i + 0.5) / len(curves) - 0.5)
            x = [names.index(x) + aside if isinstance(x, str) else x for x, _ in points]
            spread = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for _, values in points]
            style = dict(fmt='o' if names else 'o-', color=colors[label], capsize=3, label=label)
            axes.errorbar(x, [np.mean(v) for _, v in points], spread, **style)
        if names:
            axes.set_xticks(range(len(names)), names)
        else:
            axes.set_xscale('log')
        axes.set_title(f'{title} (n = {n})', fontsize='medium')
        axes.grid(alpha=0.3)
    fig.supxlabel(xlabel)
    _legend(fig, grid, columns=4)
    return fig


def scatter(panels: Mapping[str, Sequence[tuple[Any, float]]], ylabel: str) -> Any:
    """A panel for each parameter: a score against the parameter's values, logarithmic if they span a decade."""
    fig, grid = _grid(len(panels), 3.6, 2.8)
    for axes, (name, points) in zip(grid, panels.items(), strict=True):
        x, y = [value for value, _ in points], [score for _, score in points]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in x)
        axes.plot(x if numbers else list(map(str, x)), y, 'o', alpha=0.7)
        if numbers and min(x) > 0 and max(x) >= 10 * min(x):
            axes.set_xscale('log')
        axes.set_title(name, fontsize='medium')
        axes.grid(alpha=0.3)
    fig.supylabel(ylabel)
    return fig


def _grid(n: int, width: float, height: float, columns: int = 3) -> tuple[Any, Sequence[Any]]:
    """A picture of n small ones, so many in a line, of this size in inches; and their axes."""
    columns = min(columns, n)
    lines = -(-n // columns)
    fig, grid = pyplot().subplots(
        lines, columns, figsize=(width * columns, 0.5 + height * lines), layout='constrained', squeeze=False
    )
    for axes in grid.flat[n:]:
        axes.set_axis_off()
    return fig, grid.flat[:n]


def _legend(fig: Any, grid: Sequence[Any], columns: int) -> None:
    """One legend for all small pictures, above them."""
    handles = {
        label: handle
        for axes in grid
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        if label
    }
    fig.legend(handles.values(), handles, loc='outside upper center', ncols=columns, fontsize='small')


def _draw(axes: Any, curves: Iterable[tuple[Curve, str]], counted: bool = True) -> None:
    """Draws curves in their colours; `counted` says how many runs each has in the legend."""
    for curve, color in curves:
        of = f', {len(curve.runs)} seeds' if counted and len(curve.runs) > 1 else ''
        steps, values = curve.values('train')
        if steps:
            smoothed = np.array([smooth(v) for v in values])
            mean = smoothed.mean(0)
            if len(values) > 1:
                spread = smoothed.std(0, ddof=1)
                axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.25, linewidth=0)
            else:
                axes.plot(steps, values[0], color=color, alpha=0.2, linewidth=1)
            axes.plot(steps, mean, color=color, linewidth=2, label=f'{curve.label} (training, smoothed{of})')
        steps, values = curve.values('evals')
        if steps:
            spread = values.std(0, ddof=1) if len(values) > 1 else None
            style = dict(color=color, markeredgecolor='white', label=f'{curve.label} (held out{of})')
            axes.errorbar(steps, values.mean(0), spread, fmt='o', **style)
    axes.grid(alpha=0.3)


def smooth(values: np.ndarray) -> np.ndarray:
    """A centred running mean over a twentieth of the curve."""
    if not len(values):
        return values
    width = len(values) // 20
    kernel = np.ones(2 * width + 1)
    return np.convolve(values, kernel, 'same') / np.convolve(np.ones(len(values)), kernel, 'same')


def pyplot() -> Any:
    """Matplotlib, without a display."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    return plt
