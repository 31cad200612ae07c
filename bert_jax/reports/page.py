"""Render runs, tables and studies as one self-contained HTML page."""

import base64
import collections
import html
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core import metrics
from bert_jax.core.cadence import duration_to_steps
from bert_jax.data import formats
from bert_jax.experiments.runs import Run, distinguish_data, mean_and_spread
from bert_jax.reports import export
from bert_jax.reports.plots import Curve, metric_label, plot_losses, plot_panels, pyplot

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
img { max-width: 100%; } .wide { overflow-x: auto; }
@media (max-width: 40rem) { .wide img { max-width: none; width: 48rem; } }
table { border-collapse: collapse; } th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } td:not(:first-child) { white-space: nowrap; }
code { background: #f3f3f3; padding: .1rem .3rem; }
"""
# Scores of fine-tuning runs that the page shows in addition to their best_metric.
_SCORES = ('accuracy', 'f1', 'exact_match', 'f1_macro', 'matthews', 'pearson', 'spearman', 'majority')
# The two kinds of initial weights that the table of all tasks compares; see `Run.initialization`.
_COMPARED = ('random weights', 'pretrained weights')
_MAX_CURVES = 10  # settings in a figure, and pretraining runs with one: more cannot be told apart

FilledMask = list[tuple[str, float]]  # the most probable tokens, with their probabilities


def render(
    runs: Sequence[Run],
    filled: Sequence[tuple[str, list[FilledMask]]] = (),
    plots: pathlib.Path | None = None,
    files: Sequence[pathlib.Path] = (),
) -> str:
    """Render a report.

    Runs that differ only in their seed are combined: one curve shows their mean, and one table line their mean ± standard
    deviation.

    Args:
      runs: runs to plot and tabulate.
      filled: pairs of a text and the predictions for its masks.
      plots: folder for copies of the plots as PNG files, in addition to those in the page; None for no copies.
      files: Markdown files of tables and studies; see `export.find`.

    Returns:
      The HTML page.
    """
    runs, figures = distinguish_data(runs), _Figures(plots)
    parts = ['<h1>bert_jax report</h1>']
    parts += map(_render_file, files)
    pretrained = [run for run in runs if run.is_pretraining]
    parts += [_render_pretraining(run, figures, i < _MAX_CURVES) for i, run in enumerate(pretrained)]
    fine_tuned = [r for r in runs if not r.is_pretraining]
    if len({r.data_name for r in fine_tuned}) > 1:
        parts.append(_render_comparison(fine_tuned, figures))
    for data in dict.fromkeys(r.data_name for r in fine_tuned):
        parts.append(_render_fine_tuning([r for r in fine_tuned if r.data_name == data], figures))
    if filled:
        parts.append('<h2>Filled masks</h2>')
        parts += [_render_filled(text, masks) for text, masks in filled]
    if records := [_render_record(run) for run in runs if run.record]:
        parts += ['<h2>Records</h2>', *records]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>bert_jax report</title><style>{_STYLE}</style>'
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _render_record(run: Run) -> str:
    """Render the record of a run as a list that a click opens."""
    record = run.record
    tokenizer, starts = record['tokenizer'], record['starts']
    case = 'lowercase' if tokenizer['lowercase'] else 'cased'
    items = [
        (
            'Tokenizer',
            f'{tokenizer["kind"]}, {case}, {tokenizer["size"]:,} tokens, fingerprint {tokenizer["fingerprint"]}, '
            f'from {tokenizer["source"]}',
        ),
        *(('Data', _describe_data(item)) for item in record['data']),
        *(
            ('Initial checkpoint', f'{init["path"]}, hash {init["hash"]}')
            for init in [record['init']]
            if init
        ),
        *((f'Command, from step {start["step"]:,}', start['command']) for start in starts),
        ('Devices', '{count} x {kind}, processes: {processes}'.format_map(starts[-1]['devices'])),
        ('Commit', starts[-1]['commit']),
        ('Versions', ', '.join(f'{name} {version}' for name, version in starts[-1]['versions'].items())),
    ]
    content = ''.join(f'<dt>{name}</dt><dd>{html.escape(text)}</dd>' for name, text in items)
    return f'<details><summary>{html.escape(run.name)}</summary><dl>{content}</dl></details>'


def _describe_data(item: Mapping[str, Any]) -> str:
    if 'file' in item:
        return f'{item["file"]}, {item["bytes"]:,} bytes'
    return f'{item["dataset"]}, split {item["split"]}, {item["examples"]:,} examples'


class _Figures:
    """Embeds figures in the page and writes copies of them to a folder.

    Args:
      folder: folder for the copies; None writes none.
    """

    def __init__(self, folder: pathlib.Path | None):
        self._folder, self._names = folder, collections.Counter[str]()

    def render(self, fig: Any, title: str, file: str = '') -> str:
        """Return the HTML of a figure, and write it to a PNG file that is named after `file`, or after its title."""
        buffer = io.BytesIO()
        fig.savefig(buffer, format='png', dpi=144)
        pyplot().close(fig)
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = re.sub(r'\W+', '_', (file or title).lower()).strip('_')
            self._names[name] += 1
            number = f'_{self._names[name]}' if self._names[name] > 1 else ''
            (self._folder / f'{name}{number}.png').write_bytes(buffer.getvalue())
        return _embed(buffer.getvalue(), title)


def _without_folders(source: str) -> str:
    """Shorten a path to the name of the file, or of the folder if each split has a file; keep the name of a data set."""
    path = pathlib.Path(source)
    if not formats.is_path(source):
        return source
    return path.parent.name or path.name if '{split}' in path.name else path.name


def _render_file(file: pathlib.Path) -> str:
    text, figure = file.read_text(encoding='utf-8'), file.with_suffix('.png')
    if not figure.is_file():
        return export.to_html(text)
    title = text.partition('\n')[0].lstrip('# ')
    return export.to_html(text) + _embed(figure.read_bytes(), f'Figure of {title}')


def _render_pretraining(run: Run, figures: _Figures, has_figure: bool) -> str:
    losses = [k for k in (run.train[0] if run.train else {}) if k != 'loss' and k.endswith('_loss')]
    title = f'Pretraining loss of {run.name}'
    curves = [Curve(metric_label(key), [run], key) for key in losses or ['loss']]
    return (
        f'<h2>Pretraining: {html.escape(run.name)}</h2>{_describe_pretraining(run)}'
        + (figures.render(plot_losses(curves, title), title) if has_figure else '')
        + _render_scores([[run]], list(run.evals[-1])[1:] if run.evals else [])
    )


def _render_fine_tuning(runs: Sequence[Run], figures: _Figures) -> str:
    data, groups, score = runs[0].data_name, _group_seeds(runs), runs[-1].best_metric
    title, source = f'Fine-tuning on {data}', runs[0].config['data']['source']
    file = title.replace(source, _without_folders(source))
    labels = [group[0].initialization for group in groups]
    if len({*labels}) < len(labels):
        labels = [_label(group) for group in groups]
    keys = ['loss', score] if any(score in line for run in runs for line in run.evals) else ['loss']
    best = sorted(groups, key=lambda group: _mean_score(group, score, data), reverse=True)[:_MAX_CURVES]
    plotted = [(label, group) for label, group in zip(labels, groups, strict=True) if group in best]
    panels = [(data, [Curve(label, group, key) for label, group in plotted]) for key in keys]
    note = f'<p>The figure shows the {len(best)} best of {len(groups):,} settings.</p>'
    return (
        f'<h2>Fine-tuning: {html.escape(data)}</h2>'
        + figures.render(plot_panels(panels), title, file)
        + (note if len(best) < len(groups) else '')
        + _render_scores(groups, [*dict.fromkeys(['loss', score, *_SCORES])])
    )


def _render_filled(text: str, masks: Sequence[FilledMask]) -> str:
    items = (
        '<li>' + ', '.join(f'<b>{html.escape(token)}</b> {p:.0%}' for token, p in mask) + '</li>'
        for mask in masks
    )
    return f'<p><code>{html.escape(text)}</code></p><ul>{"".join(items)}</ul>'


def _group_seeds(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs that differ only in their seed."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.config_without_seed, []).append(run)
    return [*groups.values()]


def _label(group: Sequence[Run]) -> str:
    """Label runs by the common prefix of their names and, for fine-tuning, the initialization."""
    names = [re.sub(r'/seed\d+$', '', r.name) for r in group]
    name = os.path.commonprefix(names)  # noqa: RUF071
    if name != names[0]:
        name = re.sub(r'[-_.]?\d*$', '', name)  # 'run_10' and 'run_11' begin with 'run_1'
    name = name.rstrip('-_.') or group[0].name
    return name if group[0].is_pretraining else f'{name}: {group[0].initialization}'


def _render_comparison(runs: Sequence[Run], figures: _Figures) -> str:
    """Render one figure and one table that compare random with pretrained weights on all tasks.

    If the runs of a task have several settings, only the setting with the best mean score is shown.
    """
    panels: list[tuple[str, list[Curve]]] = []
    lines = [['evaluation data', 'score', *_COMPARED, 'difference', 'n']]
    for data in dict.fromkeys(r.data_name for r in runs):
        of_data = [r for r in runs if r.data_name == data]
        score = of_data[0].best_metric
        best = {
            init: _best_group([r for r in of_data if r.initialization == init], score, data)
            for init in dict.fromkeys([*_COMPARED, *(r.initialization for r in of_data)])
        }
        groups = [(init, group) for init, group in best.items() if group]
        if groups:
            panels += [(data, [Curve(*group, key) for group in groups]) for key in ('loss', score)]
        trained_on = of_data[0].config['data']['source'], of_data[0].fields
        eval_names = dict.fromkeys(
            file.name for r in of_data for file in r.eval_files if (file.source, file.fields) != trained_on
        )
        for name in [data, *eval_names]:
            random, pretrained = (_scores(best[init], score, name) for init in _COMPARED)
            gain = f'{np.mean(pretrained) - np.mean(random):+.4f}' if random and pretrained else ''
            cells = [metric_label(score), mean_and_spread(random), mean_and_spread(pretrained), gain]
            lines.append([name, *cells, f'{max(len(random), len(pretrained))}'])
    title = 'Loss and score of all tasks'
    figure = figures.render(plot_panels(panels), title) if panels else ''
    return f'<h2>All tasks</h2>{figure}{export.html_table(lines)}'


def _best_group(runs: Sequence[Run], score: str, name: str) -> list[Run]:
    """Group runs that differ only in their seed, and return the group with the best mean score; empty without runs."""
    return max(_group_seeds(runs), key=lambda group: _mean_score(group, score, name), default=[])


def _mean_score(group: Sequence[Run], score: str, name: str) -> float:
    """The mean of a score on the data `name`, negative if lower is better; -infinity without runs that have it."""
    mean = np.mean(_scores(group, score, name) or np.nan)
    return (-1 if group[0].lower_is_better else 1) * float(mean) if np.isfinite(mean) else -np.inf


def _scores(runs: Sequence[Run], score: str, name: str) -> list[float]:
    """The score of each run on the data `name`, from its last evaluation or from the newest file of an eval command."""
    if any(name == r.data_name for r in runs):
        return [r.evals[-1][score] for r in runs if r.evals and score in r.evals[-1]]
    files = ([f for f in r.eval_files if f.name == name and score in f.scores] for r in runs)
    return [max(found, key=lambda file: file.step).scores[score] for found in files if found]


def _embed(png: bytes, title: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<div class="wide"><img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></div>'


def _describe_pretraining(run: Run) -> str:
    model = run.config['model']
    speeds = [line['tokens_per_second'] for line in run.train if line['tokens_per_second']]
    text = (
        f'Trained on {run.data_name}: {model["layers"]} layers, width {model["width"]}, '
        f'vocabulary {model["vocab_size"]:,}; {_describe_phases(run)}'
        + (f'; {metrics.format_count(float(np.median(speeds)))} tokens/s' if speeds else '')
        + '.'
    )
    return f'<p>{html.escape(text)}</p>'


def _describe_phases(run: Run) -> str:
    """List the phases of a pretraining run with the steps that were trained in each."""
    train, steps = run.config['train'], run.train[-1]['step'] if run.train else 0
    phases = train['phases'] or [[steps, run.config['data']['length'], train['batch_size']]]
    start = 0
    parts: list[str] = []
    for duration, length, batch_size, *settings in phases:
        # Epochs of a phase need the number of rows, which is unknown here.
        is_known = 'epoch' not in str(duration)
        planned = duration_to_steps(duration, batch_size=batch_size) if is_known else int(steps) - start
        trained = min(planned, steps - start)
        if trained > 0 or not start:
            of = ', '.join([f'{batch_size:,} rows of {length:,} tokens', *settings])
            parts.append(f'{trained:,} steps of {of}')
        start += planned
    return ', then '.join(parts)


def _render_scores(groups: Sequence[Sequence[Run]], keys: Sequence[str]) -> str:
    """Tabulate the last evaluations, one line per group; several runs are shown as mean ± sample standard deviation."""
    evals = [[r.evals[-1] for r in group if r.evals] for group in groups]
    keys = [k for k in keys if any(k in scores for group in evals for scores in group)]
    has_seeds = any(len(group) > 1 for group in evals)
    names = [metric_label(k) for k in ('step', *['n'] * has_seeds, *keys)]
    lines = [['run', *names]]
    for group, scores in zip(groups, evals, strict=True):
        cells = [f'{scores[0]["step"]:,}' if scores else '', *[f'{len(scores)}'] * has_seeds]
        cells += [mean_and_spread([e[k] for e in scores if k in e]) for k in keys]
        lines.append([_label(group), *cells])
    return export.html_table(lines)
