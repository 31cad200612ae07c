"""Runs as one self-contained HTML page: curves, scores and filled masks."""

import base64
import dataclasses
import html
import io
import itertools
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core import metrics
from bert_jax.core.errors import UserError

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
img { max-width: 100%; } .wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } code { background: #f3f3f3; padding: .1rem .3rem; }
"""
_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')


@dataclasses.dataclass(frozen=True)
class Run:
    """A working directory as a report sees it.

    Attributes:
      name: of the directory.
      config: its config.
      train: lines of metrics of training steps, in order.
      evals: lines of metrics of evaluations, in order, names without 'eval/'.
    """

    name: str
    config: Mapping[str, Any]
    train: list[dict[str, float]]
    evals: list[dict[str, float]]

    @property
    def pretraining(self) -> bool:
        return 'sources' in self.config['data']

    @property
    def start(self) -> str:
        """What a fine-tuning began from."""
        init = self.config['init']
        return (
            'pretrained weights'
            if init['checkpoint'] and init['weights'] == 'pretrained'
            else 'random weights'
        )

    @property
    def data(self) -> str:
        """What it was trained on."""
        data = self.config['data']
        if self.pretraining:
            names = [
                pathlib.Path(s).name if s.endswith(('.txt', '.gz', '.jsonl')) else s for s in data['sources']
            ]
            return ', '.join(names)
        return data['source'] + (f', {data["limit"]:,} examples' if data['limit'] else '')

    @property
    def but_for_the_seed(self) -> str:
        """Equal for runs that are repetitions of one another."""
        train = {**self.config['train'], 'seed': None}
        return json.dumps({**self.config, 'train': train}, sort_keys=True)


def read(workdir: pathlib.Path) -> Run:
    """Reads the config and metrics of a run.

    Raises:
      UserError: if the directory holds no run.
    """
    try:
        config = json.loads((workdir / 'config.json').read_text())
        lines = metrics.read(workdir)
    except (OSError, json.JSONDecodeError) as e:
        raise UserError(
            f'{str(workdir)!r} holds no run (no readable config.json and metrics.jsonl): give a --workdir that was trained.'
        ) from e
    train = [line for line in lines if 'loss' in line]
    evals = [{k.removeprefix('eval/'): v for k, v in line.items()} for line in lines if 'eval/loss' in line]
    return Run(workdir.name, config, train, evals)


def page(
    runs: Sequence[Run],
    masks: Sequence[tuple[str, list[list[tuple[str, float]]]]] = (),
    plots: pathlib.Path | None = None,
) -> str:
    """The report of some runs, and of texts whose masks were filled.

    Runs that differ in their seed alone are one curve, their mean, and one line, mean ± standard
    deviation. The plots are written to the folder `plots` as well, if one is given.
    """
    parts = ['<h1>bert_jax report</h1>']
    for run in [r for r in runs if r.pretraining]:
        parts.append(f'<h2>Pretraining: {html.escape(run.name)}</h2>{_about(run)}')
        found = [k for k in (run.train[0] if run.train else {}) if k != 'loss' and k.endswith('_loss')]
        keys = found or ['loss']
        curves = [_Curve(k.replace('_', ' '), [run], k) for k in keys]
        parts.append(_image(curves, f'Pretraining loss of {run.name}', plots))
        parts.append(_table([[run]], list(run.evals[-1])[1:] if run.evals else []))
    downstream = [r for r in runs if not r.pretraining]
    for data in dict.fromkeys(r.data for r in downstream):
        groups: dict[str, list[Run]] = {}
        for run in (r for r in downstream if r.data == data):
            groups.setdefault(run.but_for_the_seed, []).append(run)
        parts.append(f'<h2>Fine-tuning: {html.escape(data)}</h2>')
        curves = [_Curve(_label(group), group, 'loss') for group in groups.values()]
        parts.append(_image(curves, f'Fine-tuning loss on {data}', plots))
        parts.append(_table([*groups.values()], ['loss', 'accuracy', 'f1_macro', 'matthews', 'majority']))
    if masks:
        parts.append('<h2>Filled masks</h2>')
        for text, filled in masks:
            parts.append(f'<p><code>{html.escape(text)}</code></p><ul>')
            for best in filled:
                parts.append(
                    '<li>' + ', '.join(f'<b>{html.escape(t)}</b> {p:.0%}' for t, p in best) + '</li>'
                )
            parts.append('</ul>')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>bert_jax report</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _label(group: Sequence[Run]) -> str:
    """The name that repetitions share, and what they began from."""
    name = os.path.commonprefix([r.name for r in group]).rstrip('-_.') or group[0].name  # noqa: RUF071
    return name if group[0].pretraining else f'{name}: {group[0].start}'


@dataclasses.dataclass(frozen=True)
class _Curve:
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


def figure(curves: Sequence[_Curve], title: str) -> Any:
    """Curves against steps: training thin and smoothed thick, evaluation as dots."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    fig, axes = pyplot.subplots(figsize=(8, 4.5), layout='constrained')
    for curve, color in zip(curves, itertools.cycle(_COLORS), strict=False):
        steps, values = curve.mean('train')
        axes.plot(steps, values, color=color, alpha=0.2, linewidth=1)
        label = f'{curve.label} (training, smoothed)'
        axes.plot(steps, _smooth(np.array(values)), color=color, linewidth=2, label=label)
        steps, values = curve.mean('evals')
        if steps:
            label = f'{curve.label} (held out)'
            axes.plot(steps, values, 'o', color=color, markeredgecolor='white', label=label)
    axes.set(title=title, xlabel='step', ylabel='loss (nats)')
    axes.grid(alpha=0.3)
    axes.legend(fontsize='small')
    return fig


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centred running mean over a twentieth of the curve."""
    if not len(values):
        return values
    width = len(values) // 20
    kernel = np.ones(2 * width + 1)
    return np.convolve(values, kernel, 'same') / np.convolve(np.ones(len(values)), kernel, 'same')


def _image(curves: Sequence[_Curve], title: str, plots: pathlib.Path | None) -> str:
    from matplotlib import pyplot

    fig, buffer = figure(curves, title), io.BytesIO()
    fig.savefig(buffer, format='png', dpi=144)
    pyplot.close(fig)
    if plots:
        plots.mkdir(parents=True, exist_ok=True)
        name = re.sub(r'\W+', '_', title.lower()).strip('_')
        (plots / f'{name}.png').write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></p>'


def _about(run: Run) -> str:
    model, train = run.config['model'], run.config['train']
    speeds = [line['tokens_per_second'] for line in run.train if line['tokens_per_second']]
    return (
        f'<p>On {html.escape(run.data)}: {model["layers"]} layers, {model["width"]} wide, vocabulary {model["vocab_size"]:,}; '
        f'{run.train[-1]["step"] if run.train else 0:,} steps of {train["batch_size"]} rows of {run.config["data"]["length"]} tokens'
        + (f'; {metrics.human(float(np.median(speeds)))} tokens/s' if speeds else '')
        + '.</p>'
    )


def _table(groups: Sequence[Sequence[Run]], keys: Sequence[str]) -> str:
    """The last evaluation of each run; of repetitions the mean ± standard deviation (n - 1)."""
    lasts = [[r.evals[-1] for r in group if r.evals] for group in groups]
    keys = [k for k in keys if any(k in last for group in lasts for last in group)]
    repeated = any(len(group) > 1 for group in lasts)
    head = ''.join(f'<th>{html.escape(k.replace("_", " "))}</th>' for k in ['step', *['n'] * repeated, *keys])
    rows = []
    for group, last in zip(groups, lasts, strict=True):
        cells = [f'{last[0]["step"]:,}' if last else '', *[f'{len(last)}'] * repeated]
        cells += [_mean_and_spread([e[k] for e in last if k in e]) for k in keys]
        rows.append(
            f'<tr><td>{html.escape(_label(group))}</td>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
        )
    return f'<div class="wide"><table><tr><th>held out</th>{head}</tr>{"".join(rows)}</table></div>'


def _mean_and_spread(values: Sequence[float]) -> str:
    if not values:
        return ''
    spread = f' ± {np.std(values, ddof=1):.4f}' if len(values) > 1 else ''
    return f'{np.mean(values):.4f}{spread}'
