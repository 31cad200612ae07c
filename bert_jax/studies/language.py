"""The study of where the language sits and how languages are aligned: numbers by layer, a table, a figure."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.reports import plots
from bert_jax.studies import alignment, language_location
from bert_jax.studies.hidden_states import Reader
from bert_jax.studies.word2vec import StaticReader

STATIC = 'word2vec'
_MEASURES = {
    'word_alignment': 'word alignment (MRR, %)',
    'sentence_retrieval': 'sentence retrieval',
    'centred_retrieval': 'sentence retrieval, means removed',
}


def study(reader: Reader, alphas: Sequence[float], static: StaticReader | None = None) -> dict[str, Any]:
    """All that is measured, ready for JSON.

    Of each pair of languages, both ways: word alignment and sentence retrieval by layer, and of `static` vectors; and
    the shift at each layer by each of `alphas`.
    """
    if len(reader.languages) < 2:
        raise UserError(
            f'There is one language only, {reader.languages[0]!r}: give a text of each by --text=NAME=FILE.'
        )
    if any(alphas):
        reader.check_shifts()
    mean = {language: language_location.means(reader, language) for language in reader.languages}
    aligned = {'': _Aligned(reader)} | ({} if static is None else {'static_': _Aligned(static)})
    usage = language_location.Usage(reader)
    pairs = []
    for i, a in enumerate(reader.languages):
        for b in reader.languages[i + 1 :]:
            words = alignment.dictionary(reader, a, b)
            shifts = []
            for source, target, translations in (a, b, words), (b, a, {j: i for i, j in words.items()}):
                difference = mean[target] - mean[source]
                move = functools.partial(language_location.shift, reader, source, target, difference)
                unmoved = move(0, 0.0, usage, translations) if 0 in alphas else None
                shifts += [
                    unmoved._replace(layer=layer)
                    if unmoved and not alpha
                    else move(layer, alpha, usage, translations)
                    for layer in range(reader.layers)
                    for alpha in alphas
                ]
            pairs.append(
                {
                    'languages': [a, b],
                    **{k + name: v for k, of in aligned.items() for name, v in of(a, b, words).items()},
                    'shifts': [s._asdict() for s in shifts],
                }
            )
    known = min(pair['words'] for pair in pairs)
    found = {
        'languages': [*reader.languages],
        'sentences': reader.sentences,
        'layers': reader.layers,
        'alphas': [*alphas],
        'probe': language_location.probe([*aligned[''].sentences.values()]),
        'words': known,
        'chance': {'probe': 1 / len(reader.languages)}
        | ({'word_alignment': alignment.chance(known)} if known else {})
        | ({'sentence_retrieval': 1 / reader.sentences} if reader.parallel else {}),
        'pairs': pairs,
    }
    return {**found, 'scores': _scores(found)}


class _Aligned:
    """The vectors of all languages, which are compared pair by pair."""

    def __init__(self, reader: Reader | StaticReader):
        self.sentences = {k: alignment.sentence_vectors(reader, k) for k in reader.languages}
        self._words = {k: alignment.word_vectors(reader, k) for k in reader.languages}
        self._parallel = reader.parallel

    def __call__(self, a: str, b: str, words: dict[int, int]) -> dict[str, Any]:
        """By layer; empty where there is nothing to compare."""
        ranks, known = alignment.word_alignment(words, self._words[a], self._words[b])
        found = {'words': known, 'word_alignment': ranks}
        if self._parallel:
            x, y = self.sentences[a], self.sentences[b]
            found['sentence_retrieval'] = alignment.sentence_retrieval(x, y)
            x, y = (v - v.mean(1, keepdims=True) for v in (x, y))
            found['centred_retrieval'] = alignment.sentence_retrieval(x, y)
        return found


def _scores(found: dict[str, Any]) -> dict[str, float]:
    """For tables: of each measure that of the best layer (and α above 0), and how well the language is told at the worst."""
    scores = {'probe': min(found['probe'])}
    for key in (static + measure for static in ('', 'static_') for measure in _MEASURES):
        if values := _by_layer(found, key):
            scores[key] = max(values)
    for key in ('converted', 'translated'):
        values = [
            _shifted(found, key, layer, alpha)
            for layer in range(found['layers'])
            for alpha in found['alphas']
            if alpha > 0
        ]
        if np.isfinite(values).any():
            scores[key] = float(np.nanmax(values))
    return scores


def about(found: dict[str, Any]) -> str:
    """Of what the table is, and what would come out by chance, in sentences."""
    chance = {key: f'{value:.2%}' for key, value in found['chance'].items()}
    said = [f'tells the language {chance["probe"]}']
    if 'word_alignment' in chance:
        said.append(f'word alignment {chance["word_alignment"]} (of {found["words"]:,} words')
        said[-1] += ', the fewest of a pair)' if len(found['pairs']) > 1 else ')'
    if 'sentence_retrieval' in chance:
        said.append(f'sentence retrieval {chance["sentence_retrieval"]}')
    return (
        f'{", ".join(found["languages"])}, {found["sentences"]:,} sentences each, {found["source"]}. Means over '
        f'languages and both ways. By chance: {"; ".join(said)}.'
    )


def lines(found: dict[str, Any]) -> list[list[str]]:
    """A table, a head line first: a line for each layer, means over the pairs of languages and both ways."""
    measured = {key: values for key in _MEASURES if (values := _by_layer(found, key))}
    aligned = 'word_alignment' in measured
    head = ['layer', 'tells the language', *(_MEASURES[key] for key in measured)]
    for alpha in found['alphas']:
        head += [f'converted, α={alpha:g}'] + [f'translated, α={alpha:g}'] * aligned
    out = [head]
    for layer in range(found['layers']):
        line = [str(layer), f'{found["probe"][layer]:.1%}']
        line += [f'{values[layer]:.1%}' for values in measured.values()]
        for alpha in found['alphas']:
            line.append(f'{_shifted(found, "converted", layer, alpha):.1%}')
            line += [f'{_shifted(found, "translated", layer, alpha):.1%}'] if aligned else []
        out.append(line)
    if static := [f'{value:.1%}' for key in measured for value in _by_layer(found, f'static_{key}')]:
        out.append([STATIC, '', *static, *[''] * (len(head) - len(static) - 2)])
    return out


def _by_layer(found: dict[str, Any], key: str) -> list[float]:
    values = [pair[key] for pair in found['pairs'] if pair.get(key)]
    return np.mean(values, axis=0).tolist() if values else []


def _shifted(found: dict[str, Any], key: str, layer: int, alpha: float) -> float:
    shifts = [s for pair in found['pairs'] for s in pair['shifts']]
    chosen = [s[key] for s in shifts if (s['layer'], s['alpha']) == (layer, alpha)]
    known = [c for c in chosen if c is not None]
    return float(np.mean(known)) if known else float('nan')


def figure(found: dict[str, Any]) -> Any:
    """Alignment by layer beside what chance gives, and what a shift does by layer and α."""
    aligned = _by_layer(found, 'word_alignment')
    fig, axes = plots.pyplot().subplots(
        1, 2 + bool(aligned), figsize=(4.2 * (2 + bool(aligned)), 4.6), layout='constrained'
    )
    layers = range(found['layers'])
    _by_measure(axes[0], found)
    axes[0].set(ylabel='share, or mean reciprocal rank', title='How far apart are the languages?')
    for ax, key, title in zip(
        axes[1:],
        ('converted', 'translated'),
        ('Predicted words of the other language', 'Predicted words that are the translation'),
        strict=False,
    ):
        for alpha in found['alphas']:
            ax.plot(
                layers, [_shifted(found, key, layer, alpha) for layer in layers], 'o-', label=f'α = {alpha:g}'
            )
        ax.set(ylabel='share', title=title)
    for ax, columns in zip(axes, (1, 2, 2), strict=False):
        ax.set(xlabel='layer (0: embeddings)', ylim=(-0.02, 1.02), xticks=[*layers])
        ax.yaxis.set_major_formatter('{x:.0%}')
        ax.grid(alpha=0.3)
        ax.legend(fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.16), ncols=columns)
    names, words = ', '.join(found['languages']), found['words']
    of = f', {words:,} words or more a pair' if words else ''
    fig.suptitle(f'{names}: {found["sentences"]:,} sentences each{of}', fontsize='medium')
    return fig


def _by_measure(ax: Any, found: dict[str, Any]) -> None:
    """A line for each measure; of what lies far from 0 by chance a dotted one in its colour."""
    measures = {'probe': 'a classifier tells the language', **_MEASURES}
    for key, label in measures.items():
        values = found['probe'] if key == 'probe' else _by_layer(found, key)
        if not values:
            continue
        (line,) = ax.plot(range(found['layers']), values, 'o-', label=label)
        for value in _by_layer(found, f'static_{key}'):
            ax.axhline(value, color=line.get_color(), linestyle='--', label=f'{label}, {STATIC}')
        if key in ('probe', 'word_alignment'):
            ax.axhline(found['chance'][key], color=line.get_color(), linestyle=':', linewidth=1)
    ax.plot([], [], ':', color='gray', linewidth=1, label='by chance, in the colour of the measure')
