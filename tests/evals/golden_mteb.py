"""Vectors and labels on which `make_golden_mteb` scores with MTEB, and the tests without it."""

import json
import pathlib

import numpy as np

from bert_jax.evals.retrieval import Collection

PATH = pathlib.Path(__file__).with_suffix('.json')
PAIRS, QUERIES, PASSAGES, CLASSES = 40, 12, 150, 4


def _numbers(n: int, width: int, start: float) -> np.ndarray:
    """Return fixed numbers [n, width] between -1 and 1 that look random."""
    i = np.arange(n * width, dtype=np.float64).reshape(n, width)
    return np.sin(i * i * 0.37 + start + i)


def make_vectors() -> dict[str, np.ndarray]:
    """Return a vector [6] of length 1 for each text: 'a0', 'b0', 'q0', 'p0', 'train0' or 'test0', and so on."""
    a, b = _numbers(PAIRS, 6, 0.1), _numbers(PAIRS, 6, 0.2)
    b += a * np.linspace(0, 2, PAIRS)[:, None]
    queries, passages = _numbers(QUERIES, 6, 0.3), _numbers(PASSAGES, 6, 0.4)
    passages += queries[np.arange(PASSAGES) % QUERIES] * 0.4
    classes = _numbers(CLASSES, 6, 0.5)
    train, test = (_numbers(60, 6, start) + classes[np.arange(60) % CLASSES] for start in (0.6, 0.7))
    columns = {'a': a, 'b': b, 'q': queries, 'p': passages, 'train': train, 'test': test}
    return {
        f'{name}{i}': (x / np.linalg.norm(x)).astype(np.float32)
        for name, column in columns.items()
        for i, x in enumerate(column)
    }


class Lookup:
    """Encoder of the texts of `make_vectors`."""

    has_token_vectors = False

    def encode(self, texts, prompt='', batch_size=1, show_progress=None):
        vectors = make_vectors()
        return np.stack([vectors[text] for text in texts])


def make_similarities() -> np.ndarray:
    """Return the gold similarity of each pair, some of them equal, [n]."""
    return np.round(np.linspace(0, 5, PAIRS) + _numbers(PAIRS, 1, 0.8)[:, 0])


def make_labels() -> np.ndarray:
    """Return the class ids of the training and the test texts, some of them wrong, [60]."""
    return np.where(np.arange(60) % 7 == 0, 0, np.arange(60) % CLASSES)


def make_collection(has_candidates: bool) -> Collection:
    """Return a test collection with graded judgments, whose ids are its texts."""
    judgments: dict[str, dict[str, int]] = {}
    for i in range(PASSAGES):
        if i % 5 < 3:
            judgments.setdefault(f'q{i % QUERIES}', {})[f'p{i}'] = i % 5
    candidates = {f'q{i}': [f'p{j}' for j in range(i, PASSAGES, i + 2)] for i in range(QUERIES)}
    return Collection(
        {f'q{i}': f'q{i}' for i in range(QUERIES)},
        {f'p{i}': f'p{i}' for i in range(PASSAGES)},
        judgments,
        candidates if has_candidates else {},
    )


def read() -> dict[str, dict[str, float]]:
    """Return the scores of MTEB, by task."""
    return json.loads(PATH.read_text())['scores']
