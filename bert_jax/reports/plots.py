"""Plot training curves and scores with Matplotlib."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.experiments.runs import Run

_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')
# Initial weights have the same color in all figures; see `Run.initialization`.
_FIXED_COLORS = {'random weights': _COLORS[0], 'pretrained weights': _COLORS[1], 'pretrained': _COLORS[1]}
# Parts of metric names, as written in labels.
_WORDS = {'mlm': 'masked-LM', 'next': 'next-sentence', 'rtd': 'replaced-token', 'lm': 'LM', 'f1': 'F1'}


def metric_label(name: str) -> str:
    """Convert a metric name to a readable label: 'mlm_loss' to 'masked-LM loss', 'mlm_loss/de' to 'masked-LM loss, de'."""
    metric, _, corpus = name.partition('/')
    label = ' '.join(_WORDS.get(word, word) for word in metric.split('_'))
    return f'{label}, {corpus}' if corpus else label


def _assign_colors(labels: Iterable[str]) -> dict[str, str]:
    """Assign a color to each label.

    A label that is a key of `_FIXED_COLORS`, or ends with ': ' and a key, gets the color of that key unless an earlier
    label has the color. The other labels cycle through the remaining colors.
    """
    unique = [*dict.fromkeys(labels)]
    colors: dict[str, str] = {}
    for label in unique:
        color = _FIXED_COLORS.get(label.rpartition(': ')[2])
        if color and color not in colors.values():
            colors[label] = color
    others = itertools.cycle(color for color in _COLORS if color not in colors.values())
    return {label: colors.get(label) or next(others) for label in unique}


class Curve(NamedTuple):
    """One metric over the training steps, for runs that differ only in their seed.

    Attributes:
      label: label in the legend.
      runs: the runs.
      key: name of the metric.
    """

    label: str
    runs: Sequence[Run]
    key: str

    def values(self, kind: str) -> tuple[list[float], np.ndarray]:
        """Return the metric at the steps shared by all runs that log it; runs that do not log it are left out.

        Args:
          kind: 'train' for training steps, 'evals' for evaluations.

        Returns:
          The S steps, and the values [n, S] for the n runs that have the metric.
        """
        curves = [
            {line['step']: line[self.key] for line in getattr(run, kind) if self.key in line}
            for run in self.runs
        ]
        curves = [curve for curve in curves if curve]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        return steps, np.array([[curve[s] for s in steps] for curve in curves])


def plot_losses(curves: Sequence[Curve], title: str) -> Any:
    """Plot losses against steps: training losses as thin lines, smoothed as thick lines, evaluations as dots."""
    fig, axes = pyplot().subplots(figsize=(8, 4.5), layout='constrained')
    _draw(axes, curves, _assign_colors(curve.label for curve in curves))
    axes.set(title=title, xlabel='step', ylabel='loss (nats)')
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize='small')
    return fig


def plot_panels(panels: Sequence[tuple[str, Sequence[Curve]]]) -> Any:
    """Plot one panel for each (title, curves), with one legend; a label has the same color in all panels."""
    colors = _assign_colors(curve.label for _, curves in panels for curve in curves)
    fig, grid = _make_grid(len(panels), 3.6, 2.6, max_columns=4)
    for axes, (title, curves) in zip(grid, panels, strict=True):
        _draw(axes, curves, colors)
        n = max(len(curve.runs) for curve in curves)
        axes.set_title(f'{title} (n = {n})', fontsize='medium')
        axes.set_ylabel(metric_label(curves[0].key))
    fig.supxlabel('step')
    _add_legend(fig, grid, columns=2)
    return fig


def plot_means(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float | str, list[float]]]]], xlabel: str
) -> Any:
    """Plot means with error bars of one standard deviation.

    Args:
      panels: by panel title and line label, points (x, values of n runs). The x axis is logarithmic for numbers. For names,
        it is categorical, and the points of a name are drawn side by side.
      xlabel: label of the x axis.
    """
    colors = _assign_colors(label for lines in panels.values() for label in lines)
    fig, grid = _make_grid(len(panels), 4.2, 3)
    for axes, (title, lines) in zip(grid, panels.items(), strict=True):
        n = max(len(values) for points in lines.values() for _, values in points)
        names = list(dict.fromkeys(x for points in lines.values() for x, _ in points if isinstance(x, str)))
        for i, (label, points) in enumerate(lines.items()):
            offset = 0.6 * ((i + 0.5) / len(lines) - 0.5)
            x = [names.index(x) + offset if isinstance(x, str) else x for x, _ in points]
            spread = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for _, values in points]
            style = dict(fmt='o' if names else 'o-', color=colors[label], capsize=3, label=label)
            axes.errorbar(x, [np.mean(v) for _, v in points], spread, **style)
        if names:
            axes.set_xticks(range(len(names)), names)
        else:
            _set_log_scale(axes, 'log')
        axes.set_title(f'{title} (n = {n})', fontsize='medium')
        axes.grid(alpha=0.3)
    fig.supxlabel(xlabel)
    _add_legend(fig, grid, columns=4)
    return fig


def plot_points(panels: Mapping[str, Sequence[tuple[Any, Sequence[float]]]], ylabel: str) -> Any:
    """Plot the mean of each setting of a sweep, one panel for each config key.

    A single panel has error bars of one standard deviation; in several, the points of a panel would hide each other's.

    Args:
      panels: by config key, points (x, scores of n seeds). The x axis is logarithmic for learning rates, and for numbers that
        span a factor of 10.
      ylabel: label of the scores.
    """
    fig, grid = _make_grid(len(panels), 3.6, 2.8)
    has_seeds = any(len(scores) > 1 for points in panels.values() for _, scores in points)
    has_bars = has_seeds and len(panels) == 1
    for axes, (key, points) in zip(grid, panels.items(), strict=True):
        x: list[Any] = [value for value, _ in points]
        is_numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in x)
        spread = [np.std(scores, ddof=1) if len(scores) > 1 else 0.0 for _, scores in points]
        axes.errorbar(
            x if is_numeric else list(map(str, x)),
            [np.mean(scores) for _, scores in points],
            spread if has_bars else None,
            fmt='o',
            alpha=0.7,
            capsize=3,
        )
        if is_numeric:
            _scale_x(axes, sorted({*x}), key.endswith('learning_rate'))
        axes.set_title(key, fontsize='medium')
        axes.grid(alpha=0.3)
    fig.supylabel(f'{ylabel}, mean ± standard deviation' if has_bars else 'mean ' * has_seeds + ylabel)
    return fig


def _set_log_scale(axes: Any, scale: str, **options: float) -> None:
    """Make the x axis logarithmic, with numbers in place of Matplotlib's formulas, see `pyplot`."""
    axes.set_xscale(scale, **options)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter('{x:g}' if low > 0 and high < 20 * low else '')


def _scale_x(axes: Any, values: Sequence[float], is_rate: bool) -> None:
    """Make the x axis logarithmic for rates and wide ranges of numbers, and label the values if they are few."""
    positive = [value for value in values if value > 0]
    if positive and values[0] >= 0 and (is_rate or values[-1] >= 10 * positive[0]):
        if values[0]:
            _set_log_scale(axes, 'log')
        else:
            _set_log_scale(axes, 'symlog', linthresh=positive[0])
    if len(values) <= 6:
        axes.set_xticks(values, [f'{value:g}' for value in values])
        axes.set_xticks([], minor=True)


def _make_grid(n: int, width: float, height: float, max_columns: int = 3) -> tuple[Any, Sequence[Any]]:
    """Make a figure of n panels, each `width` by `height` inches; return the figure and the axes of the panels."""
    columns = min(max_columns, n)
    rows = -(-n // columns)
    fig, grid = pyplot().subplots(
        rows, columns, figsize=(width * columns, 0.5 + height * rows), layout='constrained', squeeze=False
    )
    for axes in grid.flat[n:]:
        axes.set_axis_off()
    return fig, grid.flat[:n]


def _add_legend(fig: Any, grid: Sequence[Any], columns: int) -> None:
    """Add one legend for all panels, above them."""
    handles = {
        label: handle
        for axes in grid
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        fig.legend(handles.values(), handles, loc='outside upper center', ncols=columns, fontsize='small')


def _draw(axes: Any, curves: Sequence[Curve], colors: Mapping[str, str]) -> None:
    """Draw curves in the colors of their labels: training smoothed as lines, evaluations as dots.

    A curve of several runs is drawn as their mean, with a band or bars of one standard deviation.
    """
    for curve in curves:
        color = colors[curve.label]
        steps, values = curve.values('train')
        if steps:
            smoothed = np.array([smooth(v) for v in values])
            mean = smoothed.mean(0)
            if len(values) > 1:
                spread = smoothed.std(0, ddof=1)
                axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.25, linewidth=0)
            else:
                axes.plot(steps, values[0], color=color, alpha=0.2, linewidth=1)
            axes.plot(steps, mean, color=color, linewidth=2, label=f'{curve.label} (training, smoothed)')
        steps, values = curve.values('evals')
        if steps:
            spread = values.std(0, ddof=1) if len(values) > 1 else None
            style = dict(color=color, markeredgecolor='white', label=f'{curve.label} (held out)')
            axes.errorbar(steps, values.mean(0), spread, fmt='o', **style)
    axes.grid(alpha=0.3)


def smooth(values: np.ndarray) -> np.ndarray:
    """Smooth a curve, which must not be empty, with a centered moving average over a tenth of its length."""
    half_width = len(values) // 20
    kernel = np.ones(2 * half_width + 1)
    return np.convolve(values, kernel, 'same') / np.convolve(np.ones(len(values)), kernel, 'same')


def pyplot() -> Any:
    """Import `matplotlib.pyplot` with a backend that needs no display, and without formulas in the names of runs."""
    import matplotlib

    matplotlib.use('Agg')
    matplotlib.rcParams['text.parse_math'] = False
    from matplotlib import pyplot as plt

    return plt
