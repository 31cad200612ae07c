"""Study of contextual word vectors: how much the hidden state of a word depends on its sentence, layer by layer."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import scripts
from bert_jax.reports import plots
from bert_jax.studies.alignment import normalize
from bert_jax.studies.hidden_states import SentenceEncoder, quote

# Default word and examples, pairs of a sense of the word and a sentence with it.
DEFAULT_WORD = 'kind'
DEFAULT_EXAMPLES: tuple[tuple[str, str], ...] = (
    ('sort', 'It was a kind of dream which he could not explain.'),
    ('sort', 'She had never seen this kind of flower before.'),
    ('sort', 'There was some kind of light at the end of the road.'),
    ('sort', 'He was not the kind of man to speak of it.'),
    ('sort', 'What kind of place is this, and who lives here?'),
    ('sort', 'They had no money of any kind in the house.'),
    ('gentle', 'The old lady was very kind to the children.'),
    ('gentle', 'You are too kind, he said, and took her hand.'),
    ('gentle', 'His father had always been kind and good to him.'),
    ('gentle', 'With a kind smile she opened the door.'),
    ('gentle', 'It is kind of you to come so far to see us.'),
    ('gentle', 'She spoke in a kind voice, and he was no longer afraid.'),
)


# A letter of a script that separates words by spaces. Chinese characters are one token each.
_SPACED = rf'[^\W{scripts.UNSPACED}]'


def encode_occurrences(encoder: SentenceEncoder, word: str, sentences: Sequence[str]) -> np.ndarray:
    """Encode a word in n sentences.

    Args:
      encoder: model.
      word: word to study.
      sentences: n texts; only the first occurrence of the word in each is encoded.

    Returns:
      [L+1, n, D], mean hidden state of the word's pieces.

    Raises:
      UserError: if there are fewer than two sentences, a sentence lacks the word, the vocabulary lacks it, or it is beyond
        the maximum length of the model.
    """
    if len(sentences) < 2:
        raise UserError(f'A comparison of {word!r} needs two or more sentences. Add sentences to --input.')
    positions = [_piece_positions(encoder, word, text) for text in sentences]
    vectors: list[Any] = [None] * len(sentences)
    for indices, batch in encoder.batches(encoder.languages[0], sentences=sentences):
        hidden = encoder.hidden_states(batch)
        for row, i in enumerate(indices):
            pieces = 1 + positions[i]  # after [CLS]
            if pieces[-1] >= batch['ordinary'].shape[1] or not batch['ordinary'][row, pieces].all():
                raise UserError(
                    f'In {quote(sentences[i])}, {word!r} is beyond the maximum length of the model or not in its vocabulary. '
                    'Shorten or remove the sentence.'
                )
            vectors[i] = hidden[:, row, pieces].mean(1)
    return np.stack(vectors, 1)


def _piece_positions(encoder: SentenceEncoder, word: str, text: str) -> np.ndarray:
    """Find the indices of the tokens that form the first occurrence of a word in a text.

    In scripts that separate words by spaces, an occurrence within a longer word does not count.
    """
    before = f'(?<!{_SPACED})' if re.match(_SPACED, word) else ''
    after = f'(?!{_SPACED})' if re.match(_SPACED, word[-1:]) else ''
    match = re.search(before + re.escape(word) + after, text, re.IGNORECASE)
    if not match:
        raise UserError(f'{quote(text)} does not contain the word {word!r}. Correct or remove the sentence.')
    ((_, offsets),) = encoder.tokenizer.encode_with_offsets([text])
    return np.flatnonzero((offsets[:, 0] < match.end()) & (offsets[:, 1] > match.start()))


def cosine_similarities(vectors: np.ndarray) -> np.ndarray:
    """Pairwise cosine similarities [..., n, n] of vectors [..., n, D]."""
    x = normalize(vectors)
    return x @ x.swapaxes(-1, -2)


def sense_silhouettes(vectors: np.ndarray, senses: Sequence[str]) -> list[float]:
    """Separation of the senses in each layer: mean silhouette by cosine distance, -1 to 1 (Rousseeuw 1987).

    Args:
      vectors: [L+1, n, D] hidden states of a word.
      senses: sense of each of the n occurrences.
    """
    from sklearn.metrics import silhouette_score

    return [float(silhouette_score(x, senses, metric='cosine')) for x in vectors]


def self_similarity(
    encoder: SentenceEncoder, min_count: int = 5, max_occurrences: int = 50, seed: int = 0
) -> tuple[list[float], list[float], int]:
    """Self-similarity of words, and anisotropy as its baseline (Ethayarajh 2019, section 3).

    Args:
      encoder: model and sentences.
      min_count: minimum number of occurrences of a word.
      max_occurrences: maximum number of occurrences to use per word, chosen at random.
      seed: seed of the sampled occurrences and pairs.

    Returns:
      Three values: for each layer the mean cosine similarity of two occurrences of the same word (self-similarity); for
      each layer that of random occurrences of any two words (anisotropy); and the number of words.

    Raises:
      UserError: if no word occurs `min_count` times.
    """
    tokens, states = [], []
    for _, batch in encoder.batches(encoder.languages[0]):
        tokens.append(batch['tokens'][batch['ordinary']])
        states.append(encoder.hidden_states(batch)[:, batch['ordinary']])
    words, vectors = np.concatenate(tokens), np.concatenate(states, 1)
    rng = np.random.default_rng(seed)
    similarities = []
    for word, count in zip(*np.unique(words, return_counts=True), strict=True):
        if count >= min_count:
            sample = rng.permutation(np.flatnonzero(words == word))[:max_occurrences]
            cosines, n = cosine_similarities(vectors[:, sample]), len(sample)
            similarities.append((cosines.sum((1, 2)) - n) / (n * (n - 1)))
    if not similarities:
        raise UserError(
            f'No word occurs {min_count} times in the sentences. Raise --limit or pass a longer text.'
        )
    a, b = rng.integers(len(words), size=(2, 5000))
    a, b = a[a != b], b[a != b]
    anisotropy = (normalize(vectors[:, a]) * normalize(vectors[:, b])).sum(-1).mean(1)
    return np.mean(similarities, 0).tolist(), anisotropy.tolist(), len(similarities)


def study(
    encoder: SentenceEncoder, word: str, examples: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], np.ndarray]:
    """Measure the self-similarity of words, and the separation of the senses of one word.

    Args:
      encoder: model and sentences, for the self-similarity of words.
      word: word whose occurrences are compared.
      examples: pairs of a sense and a sentence with the word.

    Returns:
      JSON-ready results, and the hidden states of the word, [L+1, n, D]. `sense_silhouettes` is empty if all
      sentences have the same sense or each has a different one, as the silhouette is then undefined.
    """
    senses, sentences = [sense for sense, _ in examples], [text for _, text in examples]
    vectors = encode_occurrences(encoder, word, sentences)
    similarity, anisotropy, word_count = self_similarity(encoder)
    can_cluster = 1 < len({*senses}) < len(examples)
    return {
        'word': word,
        'sentences': sentences,
        'senses': senses,
        'word_count': word_count,
        'self_similarity': similarity,
        'anisotropy': anisotropy,
        'sense_silhouettes': sense_silhouettes(vectors, senses) if can_cluster else [],
        'similarities': np.round(cosine_similarities(vectors), 4).tolist(),
    }, vectors


def make_table(results: dict[str, Any]) -> list[list[str]]:
    """Make the rows of the table, header first: one row per layer."""
    silhouettes = results['sense_silhouettes']
    header = ['layer', 'self-similarity', 'anisotropy', 'difference']
    lines = [header + ['sense silhouette'] * bool(silhouettes)]
    similarities = zip(results['self_similarity'], results['anisotropy'], strict=True)
    for layer, (own, baseline) in enumerate(similarities):
        line = [str(layer), *(f'{v:.3f}' for v in (own, baseline, own - baseline))]
        lines.append(line + ([f'{silhouettes[layer]:+.3f}'] if silhouettes else []))
    return lines


def make_figure(results: dict[str, Any], vectors: np.ndarray, control: dict[str, Any] | None = None) -> Any:
    """Plot the similarities between occurrences of the word in each layer, the measures by layer, and a PCA projection.

    Args:
      results: results of `study`.
      vectors: [L+1, n, D] hidden states of the word; the last layer is projected to a plane.
      control: results of a control model, drawn as dotted lines; None for no control.
    """
    layers, has_silhouettes = len(results['similarities']), bool(results['sense_silhouettes'])
    order = np.argsort(results['senses'], kind='stable')
    senses = results['senses']
    numbers = [senses[: i + 1].count(sense) for i, sense in enumerate(senses)]  # 1, 2, ... within each sense
    labels = [f'{senses[i]} {numbers[i]}' for i in order]
    fig = plots.pyplot().figure(figsize=(max(12.0, 2.6 * layers), 7.4), layout='constrained')
    top, bottom = fig.subfigures(2, 1, height_ratios=(1, 1.25))
    axes = top.subplots(1, layers, squeeze=False)[0]
    for layer, (ax, matrix) in enumerate(zip(axes, results['similarities'], strict=True)):
        image = ax.imshow(np.array(matrix)[np.ix_(order, order)], vmin=0, vmax=1, cmap='viridis')
        ax.set_title(f'layer {layer}' if layer else 'embeddings', fontsize='medium')
        ax.set(xticks=[], yticks=[])
    axes[0].set_yticks(range(len(labels)), labels, fontsize='x-small')
    top.colorbar(image, ax=axes, label='cosine similarity', shrink=0.8)
    top.suptitle(f'Similarity of {len(labels)} occurrences of “{results["word"]}”')
    panels = bottom.subplots(1, 2 + has_silhouettes)
    measures = {'self_similarity': 'same word (self-similarity)', 'anisotropy': 'any two words (anisotropy)'}
    _plot_by_layer(panels[0], results, control, measures)
    panels[0].set(
        ylabel='cosine similarity', title=f'Similarity of {results["word_count"]:,} words across sentences'
    )
    if has_silhouettes:
        _plot_by_layer(panels[1], results, control, {'sense_silhouettes': 'sense silhouette'})
        panels[1].set(ylabel='mean silhouette', title=f'Separation of the senses of “{results["word"]}”')
    _plot_projection(panels[-1], results, vectors[-1], numbers)
    for ax in panels:
        ax.title.set_fontsize('medium')
        ax.legend(fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.18), ncols=2)
    return fig


def _plot_by_layer(
    ax: Any, results: dict[str, Any], control: dict[str, Any] | None, measures: Mapping[str, str]
) -> None:
    """Plot measures by layer, with dotted lines for the control model; `measures` maps keys of `results` to labels."""
    for (key, label), color in zip(measures.items(), ('C0', 'C1'), strict=False):
        ax.plot(results[key], 'o-', color=color, label=label)
        if control:
            ax.plot(control[key], 'o:', color=color, label=f'{label} (control)')
    ax.set(xlabel='layer (0: embeddings)', xticks=range(len(results['similarities'])))
    ax.grid(alpha=0.3)


def _plot_projection(ax: Any, results: dict[str, Any], vectors: np.ndarray, numbers: Sequence[int]) -> None:
    """Plot occurrences [n, D] on their first two principal components, each with its number."""
    from sklearn.decomposition import PCA

    points = PCA(2).fit_transform(vectors)
    for sense in dict.fromkeys(results['senses']):
        indices = [i for i, s in enumerate(results['senses']) if s == sense]
        ax.scatter(*points[indices].T, label=f'{results["word"]}: {sense} (n = {len(indices)})')
    for number, point, offset in zip(numbers, points, _label_offsets(points), strict=True):
        style = dict(textcoords='offset points', fontsize='x-small', ha='center', va='center')
        ax.annotate(str(number), point, xytext=offset, **style)
    ax.set(
        title=f'Occurrences of “{results["word"]}” in the last layer (PCA)',
        xlabel='first principal component',
        ylabel='second principal component',
    )
    ax.margins(0.12)


def _label_offsets(
    points: np.ndarray, size: tuple[int, int] = (220, 170), distance: int = 10
) -> list[np.ndarray]:
    """Choose the offset of each point's label, in 1/72 inch, to keep it clear of other points and labels.

    Args:
      points: [n, 2] coordinates.
      size: width and height of the plot, in 1/72 inch.
      distance: distance of a label from its point, in 1/72 inch.
    """
    centers = points / np.maximum(np.ptp(points, axis=0), 1e-12) * size
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    candidates = distance * np.stack([np.cos(angles), np.sin(angles)], 1)
    occupied, offsets = centers, []
    for i, center in enumerate(centers):
        others = np.delete(occupied, i, 0)
        clearance = np.linalg.norm((center + candidates)[:, None] - others, axis=-1).min(1)
        offsets.append(candidates[clearance.argmax()])
        occupied = np.concatenate([occupied, [center + offsets[-1]]])
    return offsets
