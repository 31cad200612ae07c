"""Study of a multilingual model: where the language is encoded, and how well languages are aligned, layer by layer."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.reports import plots
from bert_jax.studies import alignment, language_location
from bert_jax.studies.hidden_states import SentenceEncoder

WORD2VEC = 'word2vec'
_MEASURES = {
    'word_alignment': 'word alignment (MRR, %)',
    'sentence_retrieval': 'sentence retrieval',
    'centered_retrieval': 'sentence retrieval, mean removed',
}


# Fields of a `Shift`, and titles of their plots.
_SHIFT_MEASURES = {
    'conversion_rate': 'Mean shift: predictions in the target language',
    'translation_accuracy': 'Mean shift: exact translations',
}


def study(
    encoder: SentenceEncoder, alphas: Sequence[float], word_vectors: np.ndarray | None = None
) -> dict[str, Any]:
    """Measure the language probe, the alignment of language pairs, and shifts between languages.

    Args:
      encoder: model and sentences in two or more languages.
      alphas: multiples of the difference between two language means; each is added at each layer in turn.
      word_vectors: vectors [2V, D] from `train_word2vec` to compare the alignment with; None for no comparison.

    Returns:
      JSON-ready results: accuracy of the language probe by layer; for each pair of languages, word alignment and sentence
      retrieval by layer, those of `word_vectors` with the key prefix 'word2vec_', and the effect of each shift; chance
      levels; and `scores`, the summary that tables can refer to.

    Raises:
      UserError: if there is only one language, or the model cannot be shifted.
    """
    if len(encoder.languages) < 2:
        raise UserError(
            f'The study needs two or more languages, and the text has only {encoder.languages[0]!r}. Pass --text=NAME=SOURCE '
            'once per language.'
        )
    if any(alphas):
        encoder.check_shiftable()
    means = {k: language_location.language_mean(encoder, k) for k in encoder.languages}
    frequencies = {k: language_location.token_frequencies(encoder, k) for k in encoder.languages}
    alignments = {'': _Alignment(encoder)}
    if word_vectors is not None:
        alignments['word2vec_'] = _Alignment(encoder, lambda batch: word_vectors[batch['tokens']][None])
    pairs = []
    for a, b in itertools.combinations(encoder.languages, 2):
        translations = alignment.build_dictionary(encoder, a, b)
        reverse = {j: i for i, j in translations.items()}
        shifts = language_location.evaluate_shifts(encoder, a, b, means, frequencies, alphas, translations)
        shifts += language_location.evaluate_shifts(encoder, b, a, means, frequencies, alphas, reverse)
        measures = {
            prefix + key: value
            for prefix, compare in alignments.items()
            for key, value in compare(a, b, translations).items()
        }
        pairs.append({'languages': [a, b], **measures, 'shifts': [s._asdict() for s in shifts]})
    dictionary_size = min(pair['dictionary_size'] for pair in pairs)
    results = {
        'languages': [*encoder.languages],
        'sentences': encoder.sentences,
        'layers': encoder.layers,
        'alphas': [*alphas],
        'probe': language_location.probe_language([*alignments[''].sentences.values()]),
        'dictionary_size': dictionary_size,
        'chance': {'probe': 1 / len(encoder.languages)}
        | ({'word_alignment': alignment.chance_mrr(dictionary_size)} if dictionary_size else {})
        | ({'sentence_retrieval': 1 / encoder.sentences} if encoder.is_parallel else {}),
        'pairs': pairs,
    }
    return {**results, 'scores': _scores(results)}


class _Alignment:
    """Word and sentence vectors of all languages, to measure the alignment of any two of them."""

    def __init__(self, encoder: SentenceEncoder, encode: alignment.Encode | None = None):
        self.sentences = {k: alignment.sentence_vectors(encoder, k, encode) for k in encoder.languages}
        self._words = {k: alignment.word_vectors(encoder, k, encode=encode) for k in encoder.languages}
        self._is_parallel = encoder.is_parallel

    def __call__(self, a: str, b: str, translations: dict[int, int]) -> dict[str, Any]:
        """Measure the alignment of two languages by layer; word alignment is empty without known translations."""
        mrr, size = alignment.word_alignment(translations, self._words[a], self._words[b])
        measures = {'dictionary_size': size, 'word_alignment': mrr}
        if self._is_parallel:
            x, y = self.sentences[a], self.sentences[b]
            measures['sentence_retrieval'] = alignment.sentence_retrieval(x, y)
            x, y = (v - v.mean(1, keepdims=True) for v in (x, y))
            measures['centered_retrieval'] = alignment.sentence_retrieval(x, y)
        return measures


def _scores(results: dict[str, Any]) -> dict[str, float]:
    """Summarize each measure in one score for tables.

    The score of the probe is its minimum over layers. That of every other measure is its maximum over layers and, for shifts,
    over positive alphas.
    """
    scores = {'probe': min(results['probe'])}
    for key in (prefix + measure for prefix in ('', 'word2vec_') for measure in _MEASURES):
        if values := _mean_by_layer(results, key):
            scores[key] = max(values)
    for key in _SHIFT_MEASURES:
        shifted = _shift_scores(results, key)[:, np.array(results['alphas']) > 0]
        if np.isfinite(shifted).any():
            scores[key] = float(np.nanmax(shifted))
    return scores


def describe(results: dict[str, Any]) -> str:
    """Describe the data of the study and the chance levels."""
    chance = {key: f'{value:.2%}' for key, value in results['chance'].items()}
    levels = [f'language probe {chance["probe"]}']
    if 'word_alignment' in chance:
        levels.append(f'word alignment {chance["word_alignment"]} (of {results["dictionary_size"]:,} words')
        levels[-1] += ', the smallest dictionary)' if len(results['pairs']) > 1 else ')'
    if 'sentence_retrieval' in chance:
        levels.append(f'sentence retrieval {chance["sentence_retrieval"]}')
    return (
        f'{", ".join(results["languages"])}, {results["sentences"]:,} sentences each, {results["source"]}. Means over '
        f'language pairs and both directions. Chance: {"; ".join(levels)}.'
    )


def make_table(results: dict[str, Any]) -> list[list[str]]:
    """Make the rows of the table, header first: one row per layer, with means over language pairs and both directions."""
    measured = {key: values for key in _MEASURES if (values := _mean_by_layer(results, key))}
    has_dictionary = 'word_alignment' in measured
    header = ['layer', 'language probe', *(_MEASURES[key] for key in measured)]
    for alpha in results['alphas']:
        header += [f'conversion, α={alpha:g}'] + [f'translation, α={alpha:g}'] * has_dictionary
    shifts = [_shift_scores(results, key) for key in _SHIFT_MEASURES]
    shift_columns = np.stack(shifts[: 1 + has_dictionary], -1).reshape(results['layers'], -1)
    lines = [header]
    for layer, (probe, shift_scores) in enumerate(zip(results['probe'], shift_columns, strict=True)):
        scores = [probe, *(values[layer] for values in measured.values()), *shift_scores]
        lines.append([str(layer), *(f'{score:.1%}' for score in scores)])
    if static := [f'{value:.1%}' for key in measured for value in _mean_by_layer(results, f'word2vec_{key}')]:
        lines.append([WORD2VEC, '', *static, *[''] * (len(header) - len(static) - 2)])
    return lines


def _mean_by_layer(results: dict[str, Any], key: str) -> list[float]:
    """Mean of a measure over the language pairs that have it, by layer; empty if none has."""
    values = [pair[key] for pair in results['pairs'] if pair.get(key)]
    return np.mean(values, axis=0).tolist() if values else []


def _shift_scores(results: dict[str, Any], key: str) -> np.ndarray:
    """Mean of a `Shift` field over language pairs and both directions, [layers, alphas]; NaN where all values are None."""
    values = np.array([[s[key] for s in pair['shifts']] for pair in results['pairs']], np.float64)
    values = values.reshape(-1, results['layers'], len(results['alphas']))
    return np.ma.masked_invalid(values).mean(0).filled(np.nan)


def make_figure(results: dict[str, Any]) -> Any:
    """Plot probe and alignment by layer against chance, and the effect of a shift by layer and alpha."""
    has_dictionary = bool(_mean_by_layer(results, 'word_alignment'))
    panels = 2 + has_dictionary
    fig, axes = plots.pyplot().subplots(1, panels, figsize=(4.2 * panels, 4.6), layout='constrained')
    layers = range(results['layers'])
    legend: dict[str, Any] = dict(fontsize='small', title_fontsize='small', loc='upper center')
    legend |= dict(bbox_to_anchor=(0.5, 0), borderaxespad=4.5)
    _plot_measures(axes[0], results)
    axes[0].set(ylabel='accuracy or MRR', title='Language probe and alignment')
    axes[0].legend(**legend)
    for ax, (key, title) in zip(axes[1:], _SHIFT_MEASURES.items(), strict=False):
        for alpha, values in zip(results['alphas'], _shift_scores(results, key).T, strict=True):
            ax.plot(layers, values, 'o-', label=f'α = {alpha:g}')
        ax.set(ylabel='share of predicted tokens', title=title)
        ax.legend(title='α: multiple of the mean difference', ncols=2, **legend)
    num_labels = len(axes[0].get_legend_handles_labels()[1])
    fig.set_figheight(3.7 + 0.2 * num_labels)  # keeps the height of the plots above a long legend
    for ax in axes:
        ax.set(xlabel='layer (0: embeddings)', ylim=(-0.02, 1.02), xticks=[*layers])
        ax.title.set_fontsize('medium')
        ax.yaxis.set_major_formatter('{x:.0%}')
        ax.grid(alpha=0.3)
    names, size = ', '.join(results['languages']), results['dictionary_size']
    at_least = 'at least ' if len(results['pairs']) > 1 else ''
    words = f', dictionary of {at_least}{size:,} words' if size else ''
    fig.suptitle(f'{names}: {results["sentences"]:,} sentences per language{words}', fontsize='medium')
    return fig


def _plot_measures(ax: Any, results: dict[str, Any]) -> None:
    """Plot each measure by layer.

    Dashed lines show word2vec. Dotted lines show the chance levels of the probe and of word alignment; the chance level
    of sentence retrieval, usually close to 0, is not drawn.
    """
    measures = {'probe': 'language probe (accuracy)', **_MEASURES}
    for key, label in measures.items():
        values = results['probe'] if key == 'probe' else _mean_by_layer(results, key)
        if not values:
            continue
        name = label.partition(' (')[0]
        (line,) = ax.plot(range(results['layers']), values, 'o-', label=label)
        for value in _mean_by_layer(results, f'word2vec_{key}'):
            ax.axhline(value, color=line.get_color(), linestyle='--', label=f'{name}: {WORD2VEC}')
        if key in ('probe', 'word_alignment'):
            style = dict(color=line.get_color(), linestyle=':', linewidth=1)
            ax.axhline(results['chance'][key], label=f'{name}: chance level', **style)
