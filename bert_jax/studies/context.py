"""The same word in different sentences: how much of its vector is the sentence, layer by layer?"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.evals import plots
from bert_jax.studies.alignment import unit
from bert_jax.studies.reading import Reader

WORD = 'kind'
EXAMPLE: tuple[tuple[str, str], ...] = (
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


class Occurrences(NamedTuple):
    """One word in n sentences.

    Attributes:
      senses: of each, what the word means there.
      sentences: n texts.
      vectors: [L+1, n, D], the mean of its pieces.
    """

    word: str
    senses: Sequence[str]
    sentences: Sequence[str]
    vectors: np.ndarray


def occurrences(reader: Reader, word: str, examples: Sequence[tuple[str, str]]) -> Occurrences:
    """The hidden states of a word in examples, each a sense and a sentence.

    Raises:
      UserError: if a sentence does not have the word, or has it beyond the model's length.
    """
    if len(examples) < 2:
        raise UserError(f'{word!r} needs two sentences or more to be compared.')
    sentences = [text for _, text in examples]
    places = [_pieces(reader, word, text) for text in sentences]
    vectors: list[Any] = [None] * len(sentences)
    for indices, batch in reader.batches(reader.languages[0], sentences=sentences):
        hidden = reader.hidden(batch)
        for row, i in enumerate(indices):
            pieces = 1 + places[i]  # after [CLS]
            if pieces[-1] >= batch['ordinary'].shape[1] or not batch['ordinary'][row, pieces].all():
                raise UserError(
                    f'{sentences[i]!r} cannot be read: {word!r} lies beyond the length of the model, or is unknown to it.'
                )
            vectors[i] = hidden[:, row, pieces].mean(1)
    return Occurrences(word, [sense for sense, _ in examples], sentences, np.stack(vectors, 1))


def _pieces(reader: Reader, word: str, text: str) -> np.ndarray:
    """Which tokens of a text are the first occurrence of a word."""
    found = re.search(rf'(?<!\w){re.escape(word)}(?!\w)', text, re.IGNORECASE)
    if not found:
        raise UserError(f'{text!r} does not have the word {word!r}: mend or remove the sentence.')
    ((_, offsets),) = reader.tokenizer.encode_with_offsets([text])
    return np.flatnonzero((offsets[:, 0] < found.end()) & (offsets[:, 1] > found.start()))


def similarities(vectors: np.ndarray) -> np.ndarray:
    """Cosines [..., n, n] of vectors [..., n, D]."""
    x = unit(vectors)
    return x @ x.swapaxes(-1, -2)


def senses_apart(found: Occurrences) -> list[float]:
    """For each layer, how well the senses lie apart: the mean silhouette by cosine distance, -1 to 1 (Rousseeuw 1987)."""
    from sklearn.metrics import silhouette_score

    return [float(silhouette_score(x, found.senses, metric='cosine')) for x in found.vectors]


def self_similarity(
    reader: Reader, least: int = 5, most: int = 50, seed: int = 0
) -> tuple[list[float], list[float]]:
    """How alike the occurrences of a word are, and how alike any two words are (Ethayarajh 2019, section 3).

    Args:
      reader: whose sentences are read.
      least, most: of words that occur `least` times or more, up to `most` occurrences.
      seed: of the choice of occurrences, and of pairs.

    Returns:
      For each layer the mean cosine of two occurrences of a word, and of two random occurrences of any words, which
      is its baseline.
    """
    tokens, states = [], []
    for _, batch in reader.batches(reader.languages[0]):
        tokens.append(batch['tokens'][batch['ordinary']])
        states.append(reader.hidden(batch)[:, batch['ordinary']])
    words, vectors = np.concatenate(tokens), np.concatenate(states, 1)
    rng = np.random.default_rng(seed)
    own = []
    for word, count in zip(*np.unique(words, return_counts=True), strict=True):
        if count >= least:
            places = rng.permutation(np.flatnonzero(words == word))[:most]
            alike, n = similarities(vectors[:, places]), len(places)
            own.append((alike.sum((1, 2)) - n) / (n * (n - 1)))
    if not own:
        raise UserError(f'No word occurs {least} times in the sentences read: read more of them.')
    a, b = rng.integers(len(words), size=(2, 5000))
    a, b = a[a != b], b[a != b]
    baseline = (unit(vectors[:, a]) * unit(vectors[:, b])).sum(-1).mean(1)
    return np.mean(own, 0).tolist(), baseline.tolist()


def study(
    reader: Reader, word: str, examples: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], Occurrences]:
    """All that is measured, ready for JSON, and the word's vectors."""
    found = occurrences(reader, word, examples)
    own, baseline = self_similarity(reader)
    n = len(examples)
    return {
        'word': word,
        'sentences': [*found.sentences],
        'senses': [*found.senses],
        'self_similarity': own,
        'baseline': baseline,
        'senses_apart': senses_apart(found) if 1 < len({*found.senses}) < n else [],
        'similarities': np.round(similarities(found.vectors), 4).tolist(),
    }, found


def lines(found: dict[str, Any]) -> list[list[str]]:
    """A table, a head line first: a line for each layer."""
    apart = found['senses_apart']
    out = [['layer', 'self-similarity', 'of any two words', 'difference'] + ['senses apart'] * bool(apart)]
    for layer, (own, any_two) in enumerate(zip(found['self_similarity'], found['baseline'], strict=True)):
        line = [str(layer), *(f'{v:.3f}' for v in (own, any_two, own - any_two))]
        out.append(line + ([f'{apart[layer]:+.3f}'] if apart else []))
    return out


def figure(found: dict[str, Any], vectors: np.ndarray, control: dict[str, Any] | None = None) -> Any:
    """Similarities of the occurrences in each layer; below, layers compared, and the occurrences of the last in a plane."""
    from sklearn.decomposition import PCA

    layers = len(found['similarities'])
    order = np.argsort(found['senses'], kind='stable')
    labels = [f'{found["senses"][i]} {k}' for k, i in enumerate(order, 1)]
    fig = plots.pyplot().figure(figsize=(max(9.0, 2.6 * layers), 7), layout='constrained')
    top, bottom = fig.subfigures(2, 1, height_ratios=(1, 1.1))
    axes = top.subplots(1, layers, squeeze=False)[0]
    for layer, (ax, matrix) in enumerate(zip(axes, found['similarities'], strict=True)):
        image = ax.imshow(np.array(matrix)[np.ix_(order, order)], vmin=0, vmax=1, cmap='viridis')
        ax.set_title(f'layer {layer}' if layer else 'embeddings', fontsize='medium')
        ax.set_xticks([])
        ax.set_yticks(
            range(len(labels)) if not layer else [], labels if not layer else [], fontsize='x-small'
        )
    top.colorbar(image, ax=axes, label='cosine', shrink=0.8)
    top.suptitle(f'“{found["word"]}” in {len(labels)} sentences')
    left, right = bottom.subplots(1, 2)
    _by_layer(left, found, '', '-')
    if control:
        _by_layer(left, control, ' (control)', ':')
    left.set(xlabel='layer (0: embeddings)', ylabel='cosine, or silhouette', xticks=range(layers))
    bottom.legend(*left.get_legend_handles_labels(), loc='outside lower left', fontsize='small', ncols=3)
    left.grid(alpha=0.3)
    plane = PCA(2).fit_transform(vectors[-1])
    for sense in dict.fromkeys(found['senses']):
        at = [i for i, s in enumerate(found['senses']) if s == sense]
        right.scatter(*plane[at].T, label=f'{found["word"]}: {sense}')
    for k, i in enumerate(order, 1):
        right.annotate(str(k), plane[i], xytext=(4, 4), textcoords='offset points', fontsize='x-small')
    right.set(title='last layer, in the plane of most variance', xlabel='first component', ylabel='second')
    right.legend(fontsize='small')
    return fig


def _by_layer(ax: Any, found: dict[str, Any], suffix: str, style: str) -> None:
    for color, key, label in (
        ('#0072b2', 'self_similarity', 'two occurrences of a word'),
        ('#d55e00', 'baseline', 'any two words'),
        ('#009e73', 'senses_apart', f'senses of “{found["word"]}” apart (silhouette)'),
    ):
        if found[key]:
            ax.plot(range(len(found[key])), found[key], style, marker='o', color=color, label=label + suffix)
