"""Score text embeddings without their task: similarities of pairs, classes by logistic regression, and clusters."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from bert_jax.core import config as config_lib
from bert_jax.core.errors import UserError
from bert_jax.data import labeled
from bert_jax.data import records as records_lib
from bert_jax.data.records import Record
from bert_jax.evals.embedder import Embedder
from bert_jax.tasks import embed
from bert_jax.train import checkpoint as checkpoint_lib
from bert_jax.train import experiment as experiment_lib

SEEDS = 3  # number of starts of the clustering, whose mean is reported


class _VectorScorer:
    """Base class of the scorers of vectors."""

    def __init__(self, spec: str, overrides: Sequence[str] = ()):
        self._experiment = experiment_lib.read(spec, overrides)
        self._data: Any = self._experiment.data

    def _read_evaluated(self) -> list[Record]:
        """Read the records to score."""
        return self._data.read(self._data.eval_split)[: self._experiment.train.eval_rows or None]

    def _load(self, path: pathlib.Path, length: int = 0) -> Embedder:
        embedder = Embedder(path, length=length)
        if embedder.has_token_vectors:
            raise UserError(
                f'{str(path)!r} has a vector for each token, but the scores need one for each text. Set --checkpoint to a '
                'model with another pooling.'
            )
        return embedder

    def _describe(self, path: pathlib.Path, rows: int, scores: dict[str, float]) -> dict[str, Any]:
        data = self._data
        return {
            'checkpoint': str(path),
            'step': checkpoint_lib.read_metadata(path)[1]['step'],
            'source': data.source,
            'split': records_lib.used_split(data.source, data.eval_split),
            'rows': rows,
            'config': config_lib.as_dict(data),
            'scores': scores,
        }

    @staticmethod
    def format_scores(scores: dict[str, float]) -> str:
        """Format scores as a plain-text table."""
        width = max(map(len, scores))
        return '\n'.join(f'{name:>{width}}  {value:.4f}' for name, value in scores.items())


class ClassScorer(_VectorScorer):
    """Score checkpoints by the classes of single texts, with the data of a config of the task `classify`.

    `accuracy` is that of a logistic regression on the vectors of the training split. `v_measure` is that of as many
    clusters of the evaluation split as there are classes (k-means; Rosenberg & Hirschberg 2007).

    Args:
      spec: config file of the task `classify`, for the data.
      overrides: `a.b=value` changes to the config.

    Raises:
      UserError: if the config reads pairs of texts.
    """

    def __init__(self, spec: str, overrides: Sequence[str] = ()):
        super().__init__(spec, overrides)
        if self._data.text_pair:
            raise UserError(
                f'{spec!r} reads pairs of texts, but a vector is that of one text. Set data.text_pair to empty.'
            )

    def __call__(self, path: pathlib.Path) -> dict[str, Any]:
        """Return the scores of the newest checkpoint in `path`, with its step and a description of the data."""
        data = self._data
        names = labeled.label_names(data)
        embedder = self._load(path)
        (train, train_labels), (held_out, labels) = (
            self._encode(embedder, records, names)
            for records in (
                data.read(data.train_split, data.limit),
                self._read_evaluated(),
            )
        )
        return self._describe(path, len(labels), score_vectors(train, train_labels, held_out, labels))

    def _encode(
        self, embedder: Embedder, records: Sequence[Record], names: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors [n, D] of records, and their class ids [n]."""
        texts = [record.text(self._data.text, 'data.text') for record in records]
        return embedder.encode(texts), np.array(labeled.class_ids(records, self._data, names))


class PairScorer(_VectorScorer):
    """Score encoders of other tasks by the labeled similarities of pairs, with the data of a config of the task `embed`.

    The scores are the correlations of the cosine similarities with the labels, as for a model of the task. The vector of a text
    is the mean of the last hidden states.

    Args:
      spec: config file of the task `embed` with the objective 'cosine', for the data.
      overrides: `a.b=value` changes to the config.

    Raises:
      UserError: if the config has another objective, or names another number of fields than two.
    """

    def __init__(self, spec: str, overrides: Sequence[str] = ()):
        super().__init__(spec, overrides)
        if len(self._data.texts) != 2:
            raise UserError(
                f'data.texts={self._data.texts} has {len(self._data.texts)} fields, but similarities are those of pairs. Name two '
                'fields.'
            )
        if (objective := getattr(self._experiment.task, 'objective', '')) != 'cosine':
            raise UserError(
                f'{spec!r} has task.objective={objective!r}, but an encoder that was not trained for it is scored by similarities. '
                'Set --config to a config with task.objective=cosine, such as configs/finetune/embed.py:stsb.'
            )

    def __call__(self, path: pathlib.Path) -> dict[str, Any]:
        """Return the scores of the newest checkpoint in `path`, with its step and a description of the data."""
        data = self._data
        records = self._read_evaluated()
        labels = [labeled.decode_float(bits) for bits in labeled.encode_floats(records, data)]
        embedder = self._load(path, data.length)
        prompts = data.prompts or ('',) * len(data.texts)
        a, b = (
            embedder.encode([prompt + record.text(field, 'data.texts') for record in records])
            for field, prompt in zip(data.texts, prompts, strict=True)
        )
        similarity = (a.astype(np.float64) * b).sum(-1)
        return self._describe(path, len(records), embed.correlations(similarity, np.array(labels)))


def is_trained_to_embed(path: str) -> bool:
    """Return whether a checkpoint is of the task `embed`, or there is none yet."""
    try:
        config = checkpoint_lib.read_metadata(pathlib.Path(path))[1]['config']
    except UserError:  # --watch waits for one
        return True
    return config['task']['name'] == 'embed'


def score_vectors(
    train: np.ndarray, train_labels: np.ndarray, held_out: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Score vectors by the classes of their texts.

    Args:
      train: [n, D] vectors to train on.
      train_labels: [n] class ids.
      held_out: [m, D] vectors to score.
      labels: [m] class ids.

    Returns:
      accuracy and v_measure, as in `ClassScorer`, and majority, the share of the most frequent class.
    """
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import v_measure_score

    regression = LogisticRegression(max_iter=1000).fit(train, train_labels)
    clusterings = [
        KMeans(len({*labels}), n_init=1, random_state=seed).fit_predict(held_out) for seed in range(SEEDS)
    ]
    return {
        'accuracy': float(np.mean(regression.predict(held_out) == labels)),
        'v_measure': float(np.mean([v_measure_score(labels, found) for found in clusterings])),
        'majority': float(np.bincount(labels).max() / len(labels)),
    }
