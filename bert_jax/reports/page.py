"""Runs as one self-contained HTML page: curves, scores and filled masks."""

import base64
import html
import io
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.core import metrics
from bert_jax.experiments.runs import Run
from bert_jax.reports import export
from bert_jax.reports.plots import Curve, figure, panels

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
img { max-width: 100%; } .wide { overflow-x: auto; }
@media (max-width: 40rem) { .wide img { max-width: none; width: 48rem; } }
table { border-collapse: collapse; } th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } td:not(:first-child) { white-space: nowrap; }
code { background: #f3f3f3; padding: .1rem .3rem; }
"""


def render(
    runs: Sequence[Run],
    masks: Sequence[tuple[str, list[list[tuple[str, float]]]]] = (),
    plots: pathlib.Path | None = None,
    written: Sequence[pathlib.Path] = (),
) -> str:
    """The report of some runs, of texts whose masks were filled, and of tables and studies (see `export.find`).

    Runs that differ in their seed alone are one curve, their mean, and one line, mean ± standard
    deviation. The plots are written to the folder `plots` as well, if one is given.
    """
    parts = ['<h1>bert_jax report</h1>']
    for file in written:
        parts.append(export.to_html(file.read_text(encoding='utf-8')))
        if file.with_suffix('.png').is_file():
            title = file.read_text(encoding='utf-8').partition('\n')[0].lstrip('# ')
            parts.append(_embedded(file.with_suffix('.png').read_bytes(), f'Figure of {title}'))
    for run in [r for r in runs if r.pretraining]:
        parts.append(f'<h2>Pretraining: {html.escape(run.name)}</h2>{_about(run)}')
        found = [k for k in (run.train[0] if run.train else {}) if k != 'loss' and k.endswith('_loss')]
        keys = found or ['loss']
        title = f'Pretraining loss of {run.name}'
        curves = [Curve(k.replace('_', ' '), [run], k) for k in keys]
        parts.append(_image(figure(curves, title), title, plots))
        parts.append(_table([[run]], list(run.evals[-1])[1:] if run.evals else []))
    downstream = [r for r in runs if not r.pretraining]
    if len({r.data for r in downstream}) > 1:
        parts.append(_together(downstream, plots))
    for data in dict.fromkeys(r.data for r in downstream):
        of_data = [r for r in downstream if r.data == data]
        groups = _repetitions(of_data)
        parts.append(f'<h2>Fine-tuning: {html.escape(data)}</h2>')
        title = f'Fine-tuning loss on {data}'
        curves = [Curve(_label(group), group, 'loss') for group in groups]
        parts.append(_image(figure(curves, title), title, plots))
        wanted = ['accuracy', 'f1', 'exact_match', 'f1_macro', 'matthews', 'pearson', 'spearman', 'majority']
        shown = dict.fromkeys(['loss', of_data[-1].score, *wanted])
        parts.append(_table(groups, [*shown]))
    if masks:
        parts.append('<h2>Filled masks</h2>')
        for text, filled in masks:
            parts.append(f'<p><code>{html.escape(text)}</code></p><ul>')
            for best in filled:
                parts.append(
                    '<li>' + ', '.join(f'<b>{html.escape(t)}</b> {p:.0%}' for t, p in best) + '</li>'
                )
            parts.append('</ul>')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>bert_jax report</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _repetitions(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seed alone, together."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.but_for_the_seed, []).append(run)
    return [*groups.values()]


def _label(group: Sequence[Run]) -> str:
    """The name that repetitions share, and what they began from."""
    names = [re.sub(r'/seed\d+$', '', r.name) for r in group]
    name = os.path.commonprefix(names)  # noqa: RUF071
    if name != names[0]:
        name = re.sub(r'[-_.]?\d*$', '', name)  # what is common to 10 and 11
    name = name.rstrip('-_.') or group[0].name
    return name if group[0].pretraining else f'{name}: {group[0].start}'


def _together(runs: Sequence[Run], plots: pathlib.Path | None) -> str:
    """Loss and score of all tasks in one picture and one table, from pretrained weights against random ones.

    Of runs with several settings the best count, by their mean.
    """
    curves: list[tuple[str, list[Curve]]] = []
    lines = []
    for data in dict.fromkeys(r.data for r in runs):
        score = next(r.score for r in runs if r.data == data)
        of_data = [r for r in runs if r.data == data]
        starts = dict.fromkeys([*_STARTS, *(r.start for r in of_data)])
        by_start = {s: _best_setting([r for r in of_data if r.start == s], score, data) for s in starts}
        groups = [(start, group) for start, group in by_start.items() if group]
        if groups:
            curves += [(data, [Curve(*group, key) for group in groups]) for key in ('loss', score)]
        wanted = dict.fromkeys(name for r in runs if r.data == data for name, _ in r.scored)
        for name in [data, *(n for n in wanted if not n.startswith(f'{data}, '))]:
            random, pretrained = (_scores_of(by_start[start], score, name) for start in _STARTS)
            gain = f'{np.mean(pretrained) - np.mean(random):+.4f}' if random and pretrained else ''
            cells = [score.replace('_', ' '), _mean_and_spread(random), _mean_and_spread(pretrained), gain]
            cells.append(f'{max(len(random), len(pretrained))}')
            lines.append(f'<tr><td>{html.escape(name)}</td>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    head = ''.join(f'<th>{name}</th>' for name in ('score', *_STARTS, 'difference', 'n'))
    table = f'<div class="wide"><table><tr><th>held out</th>{head}</tr>{"".join(lines)}</table></div>'
    title = 'Loss and score of all tasks'
    picture = _image(panels(curves), title, plots) if curves else ''
    return f'<h2>All tasks</h2>{picture}{table}'


def _best_setting(runs: Sequence[Run], score: str, name: str) -> list[Run]:
    """Of these runs those that differ in their seed alone and have the best mean."""
    return max(_repetitions(runs), key=lambda g: np.mean(_scores_of(g, score, name) or -np.inf), default=[])


_STARTS = ('random weights', 'pretrained weights')


def _scores_of(runs: Sequence[Run], score: str, name: str) -> list[float]:
    """A score of each run: of its last evaluation, or of what an eval binary scored, by its name."""
    if any(name == r.data for r in runs):
        return [r.evals[-1][score] for r in runs if r.evals and score in r.evals[-1]]
    return [scores[score] for r in runs for n, scores in r.scored if n == name and score in scores]


def _image(fig: Any, title: str, plots: pathlib.Path | None) -> str:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    fig.savefig(buffer, format='png', dpi=144)
    pyplot.close(fig)
    if plots:
        plots.mkdir(parents=True, exist_ok=True)
        name = re.sub(r'\W+', '_', title.lower()).strip('_')
        (plots / f'{name}.png').write_bytes(buffer.getvalue())
    return _embedded(buffer.getvalue(), title)


def _embedded(png: bytes, title: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<div class="wide"><img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></div>'


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
