"""The same word in different sentences: how much of its vector is the sentence, layer by layer?"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.reports import plots
from bert_jax.studies.alignment import unit
from bert_jax.studies.hidden_states import Reader, quoted

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


# A letter of a script that writes spaces: not Thai to Burmese, Khmer, kana, or Chinese characters, which are tokens each.
_SPACED = r'[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]'


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
                    f'{quoted(sentences[i])} cannot be read: {word!r} lies beyond the length of the model, or is unknown '
                    'to it.'
                )
            vectors[i] = hidden[:, row, pieces].mean(1)
    return Occurrences(word, [sense for sense, _ in examples], sentences, np.stack(vectors, 1))


def _pieces(reader: Reader, word: str, text: str) -> np.ndarray:
    """Which tokens of a text are the first occurrence of a word; no part of a longer one where a script has spaces."""
    before = f'(?<!{_SPACED})' if re.match(_SPACED, word) else ''
    after = f'(?!{_SPACED})' if re.match(_SPACED, word[-1:]) else ''
    found = re.search(before + re.escape(word) + after, text, re.IGNORECASE)
    if not found:
        raise UserError(f'{quoted(text)} does not have the word {word!r}: mend or remove the sentence.')
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
) -> tuple[list[float], list[float], int]:
    """How alike the occurrences of a word are, and how alike any two words are (Ethayarajh 2019, section 3).

    Args:
      reader: whose sentences are read.
      least, most: of words that occur `least` times or more, up to `most` occurrences.
      seed: of the choice of occurrences, and of pairs.

    Returns:
      For each layer the mean cosine of two occurrences of a word, and of two random occurrences of any words, which
      is its baseline; and of how many words.
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
    return np.mean(own, 0).tolist(), baseline.tolist(), len(own)


def study(
    reader: Reader, word: str, examples: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], Occurrences]:
    """All that is measured, ready for JSON, and the word's vectors."""
    found = occurrences(reader, word, examples)
    own, baseline, words = self_similarity(reader)
    n = len(examples)
    return {
        'word': word,
        'sentences': [*found.sentences],
        'senses': [*found.senses],
        'words': words,
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
    layers, apart = len(found['similarities']), bool(found['senses_apart'])
    order = np.argsort(found['senses'], kind='stable')
    labels = [f'{found["senses"][i]} {k}' for k, i in enumerate(order, 1)]
    fig = plots.pyplot().figure(figsize=(max(12.0, 2.6 * layers), 7.4), layout='constrained')
    top, bottom = fig.subfigures(2, 1, height_ratios=(1, 1.25))
    axes = top.subplots(1, layers, squeeze=False)[0]
    for layer, (ax, matrix) in enumerate(zip(axes, found['similarities'], strict=True)):
        image = ax.imshow(np.array(matrix)[np.ix_(order, order)], vmin=0, vmax=1, cmap='viridis')
        ax.set_title(f'layer {layer}' if layer else 'embeddings', fontsize='medium')
        ax.set_xticks([])
        ax.set_yticks(
            range(len(labels)) if not layer else [], labels if not layer else [], fontsize='x-small'
        )
    top.colorbar(image, ax=axes, label='cosine', shrink=0.8)
    top.suptitle(f'“{found["word"]}”: {len(labels)} occurrences')
    panels = bottom.subplots(1, 2 + apart)
    alike = (('self_similarity', 'two occurrences of a word'), ('baseline', 'any two words'))
    _by_layer(panels[0], found, control, alike)
    panels[0].set(ylabel='cosine', title=f'{found["words"]:,} words in other sentences')
    if apart:
        _by_layer(panels[1], found, control, (('senses_apart', 'senses apart'),))
        panels[1].set(ylabel='silhouette', title=f'senses of “{found["word"]}”: {len(labels)} occurrences')
    _plane(panels[-1], found, vectors[-1], order)
    for ax in panels:
        ax.title.set_fontsize('medium')
        ax.legend(fontsize='small', loc='upper center', bbox_to_anchor=(0.5, -0.18), ncols=2)
    return fig


def _by_layer(
    ax: Any, found: dict[str, Any], control: dict[str, Any] | None, measures: Sequence[tuple[str, str]]
) -> None:
    """Lines of measures (key, label) by layer, dotted for the control."""
    for (key, label), color in zip(measures, ('C0', 'C1'), strict=False):
        ax.plot(found[key], 'o-', color=color, label=label)
        if control:
            ax.plot(control[key], 'o:', color=color, label=f'{label} (control)')
    ax.set(xlabel='layer (0: embeddings)', xticks=range(len(found['similarities'])))
    ax.grid(alpha=0.3)


def _plane(ax: Any, found: dict[str, Any], vectors: np.ndarray, order: np.ndarray) -> None:
    """The occurrences [n, D] in a plane, numbered in this order."""
    from sklearn.decomposition import PCA

    plane = PCA(2).fit_transform(vectors)
    for sense in dict.fromkeys(found['senses']):
        at = [i for i, s in enumerate(found['senses']) if s == sense]
        ax.scatter(*plane[at].T, label=f'{found["word"]}: {sense} (n = {len(at)})')
    for k, (i, offset) in enumerate(zip(order, _aside(plane[order]), strict=True), 1):
        style = dict(textcoords='offset points', fontsize='x-small', ha='center', va='center')
        ax.annotate(str(k), plane[i], xytext=offset, **style)
    ax.set(title='last layer, in the plane of most variance', xlabel='first component', ylabel='second')
    ax.margins(0.12)


def _aside(plane: np.ndarray, size: tuple[int, int] = (220, 170), far: int = 10) -> list[np.ndarray]:
    """Offsets at which labels of points [n, 2] are clear of all points and labels, on a plane of some size; all in pt."""
    spots = plane / np.maximum(np.ptp(plane, axis=0), 1e-12) * size
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ways, taken, chosen = far * np.stack([np.cos(angles), np.sin(angles)], 1), spots, []
    for i, spot in enumerate(spots):
        others = np.delete(taken, i, 0)
        room = np.linalg.norm((spot + ways)[:, None] - others, axis=-1).min(1)
        chosen.append(ways[room.argmax()])
        taken = np.concatenate([taken, [spot + chosen[-1]]])
    return chosen
