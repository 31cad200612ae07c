"""Re-rank search results with a cross-encoder, which reads a query and a passage together (Nogueira & Cho 2019)."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import logsumexp

from bert_jax.core import partitioning
from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.data.records import Record
from bert_jax.evals.evaluator import Evaluator
from bert_jax.evals.retrieval import Collection
from bert_jax.train import load

_CHUNK = 1 << 16  # pairs whose tokens are in memory at once


class Reranker:
    """A cross-encoder that scores pairs of a query, the first text, and a passage, the second.

    Pairs are truncated as in training: to `data.length` tokens, the longer text first.

    Args:
      path: working directory of a run of the task `classify` or `regress` on pairs of texts, or the folder of one of its
        checkpoints.
      label: class of relevant passages; empty takes the second of two classes.

    Raises:
      UserError: if the checkpoint scores no pairs of texts, or has no such class.
    """

    def __init__(self, path: str | pathlib.Path, label: str = ''):
        self._partitioner = partitioning.make(partitioning.MeshConfig())
        self._trained = trained = load.read(path, self._partitioner)
        task, data = trained.experiment.task, trained.experiment.data
        if task.name not in ('classify', 'regress'):
            raise UserError(
                f'{str(path)!r} was trained on the task {task.name!r}, which scores no pairs of texts. Set --reranker to a '
                'run of the task classify or regress.'
            )
        if data.source and not data.text_pair:
            raise UserError(
                f'{str(path)!r} was trained on single texts. Set --reranker to a run with data.text_pair.'
            )
        labels = getattr(task, 'labels', ())
        if label and label not in labels:
            hint = did_you_mean(label, labels) if labels else 'It predicts a number. Omit --reranker_label.'
            raise UserError(f'{str(path)!r} has no class {label!r}: {hint}')
        if len(labels) > 2 and not label:
            raise UserError(
                f'{str(path)!r} has the classes {", ".join(labels)}. Set --reranker_label to that of relevant passages.'
            )
        self._label = labels.index(label) if label else 1
        data = dataclasses.replace(data, text='query', text_pair='passage')
        experiment = dataclasses.replace(trained.experiment, data=data)
        self._task = experiment.make_task(trained.tokenizer)
        self._config = dataclasses.replace(experiment.train, eval_rows=0)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Return the relevance of each pair, [n] float: the predicted number, or the log-odds of the class."""
        scores = [np.zeros(0)]
        for start in range(0, len(pairs), _CHUNK):
            records = [
                Record(f'pair {start + i},', {'query': query, 'passage': passage})
                for i, (query, passage) in enumerate(pairs[start : start + _CHUNK])
            ]
            examples = self._task.make_examples(records, with_labels=False)
            evaluator = Evaluator(self._task, self._trained.graph, examples, self._partitioner, self._config)
            _, outputs = evaluator.collect_outputs(self._trained.params)
            if 'predicted' in outputs:
                scores.append(outputs['predicted'])
            else:
                logits = outputs['logits'].astype(np.float64)
                others = logsumexp(np.delete(logits, self._label, axis=1), axis=1)
                scores.append(logits[:, self._label] - others)
        return np.concatenate(scores)


def rerank(
    reranker: Reranker, collection: Collection, rankings: Mapping[str, Sequence[str]], k: int
) -> dict[str, list[str]]:
    """Sort the best `k` passages of each ranking by the scores of a cross-encoder; the others follow as they were.

    Args:
      reranker: the cross-encoder.
      collection: texts of the queries and passages.
      rankings: ids of passages by query id, as `retrieval.rank` returns them.
      k: number of passages to score for each query.
    """
    heads = {query: ranking[:k] for query, ranking in rankings.items()}
    pairs = [
        (collection.queries[query], collection.passages[passage])
        for query, head in heads.items()
        for passage in head
    ]
    scores = iter(reranker(pairs))
    reranked = {}
    for query, head in heads.items():
        order = np.argsort([-next(scores) for _ in head], kind='stable')
        reranked[query] = [*(head[i] for i in order), *rankings[query][k:]]
    return reranked
