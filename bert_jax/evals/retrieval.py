"""Search with text embeddings: exact nearest vectors, and the scores of BEIR test collections (Thakur et al. 2021)."""

import functools
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data import files, tfds_data
from bert_jax.data import records as records_lib
from bert_jax.data.records import Record
from bert_jax.modeling import sentence_vectors

CUTOFF = 10  # of nDCG, MRR and precision
RECALL_CUTOFF = 100  # of recall and MAP; number of passages that a search returns
_QUERIES, _PASSAGES = 256, 1 << 16  # sizes of the blocks of similarities that are computed at once
_COSINES = 1 << 26  # number of cosines of tokens that are computed at once


class Collection(NamedTuple):
    """A test collection.

    Attributes:
      queries: texts of the queries by id.
      passages: texts of the passages by id, each after its title, if it has one.
      judgments: relevance of passages for a query, by query id and passage id; higher is better, 0 is irrelevant.
      candidates: ids of the passages to rank for a query, by query id; empty ranks all passages.
    """

    queries: Mapping[str, str]
    passages: Mapping[str, str]
    judgments: Mapping[str, Mapping[str, int]]
    candidates: Mapping[str, Sequence[str]] = MappingProxyType({})


def read_collection(source: str, split: str = 'test') -> Collection:
    """Read a test collection.

    Args:
      source: a TFDS data set with the features of `beir`, or a folder in the format of BEIR: corpus.jsonl with _id, title and
        text, queries.jsonl with _id and text, and qrels/SPLIT.tsv with the ids of query and passage, and a score. As in
        MTEB, it may have top_ranked/SPLIT.jsonl with candidates: the id of a query, and a list of ids of passages.
      split: split of the judgments.

    Raises:
      UserError: if a file is missing or invalid, or a judgment names a query or passage that does not exist.
    """
    folder = pathlib.Path(source).expanduser()
    candidates: dict[str, list[str]] = {}
    if folder.is_dir():
        queries = _by_id(_read_file(folder, 'queries.jsonl'), '_id', lambda r: r.text('text'))
        passages = _by_id(_read_file(folder, 'corpus.jsonl'), '_id', _join)
        rows = _read_file(folder, f'qrels/{split}.tsv')
        found = [(r, str(r.get('query-id')), str(r.get('corpus-id')), r.get('score')) for r in rows]
        if _find_file(folder, f'top_ranked/{split}.jsonl'):
            for record in _read_file(folder, f'top_ranked/{split}.jsonl'):
                names = [str(name) for name in record.values('corpus-ids')]
                query = _check_ids(record, str(record.get('query-id')), queries, names, passages)
                candidates[query] = list(dict.fromkeys(names))
    else:
        try:
            tfds_data.load_features(source)
        except UserError as e:
            raise UserError(f'{source!r} is no folder, and no prepared data set either: {e}') from e
        queries = _by_id(records_lib.read(source, 'query'), 'query_id', lambda r: r.text('query'))
        passages = _by_id(records_lib.read(source, 'passage'), 'passage_id', lambda r: r.text('passage'))
        rows = records_lib.read(source, split)
        found = [(r, r.text('query_id'), r.text('passage_id'), r.get('score')) for r in rows]
    judgments: dict[str, dict[str, int]] = {}
    for record, query, passage, score in found:
        _check_ids(record, query, queries, [passage], passages)
        try:
            before = judgments.setdefault(query, {}).setdefault(passage, int(score))
        except (TypeError, ValueError) as e:
            raise record.error(f'has the score {score!r}, which is not an integer') from e
        if before != int(score):
            raise record.error(
                f'has the score {score}, but an earlier record for the same passage has {before}'
            )
    if not answerable(judgments):
        raise UserError(f'No query of {source!r} has a relevant passage. Correct the judgments.')
    if candidates and (missing := len({*judgments} - {*candidates})):
        logging.warning('%d of %d queries have no candidates, and count as 0', missing, len(judgments))
    return Collection(queries, passages, judgments, candidates)


_FIELDS = {
    'queries.jsonl': '_id and text',
    'corpus.jsonl': '_id, text and perhaps title',
    'qrels': 'query-id, corpus-id and score in a header line',
    'top_ranked': 'query-id and corpus-ids',
}  # by file or folder


def _find_file(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """Find a file of a test collection, which may be compressed; None if there is none."""
    paths = (folder / f'{name}{suffix}' for suffix in ('', *files.COMPRESSIONS))
    return next((path for path in paths if path.exists()), None)


def _read_file(folder: pathlib.Path, name: str) -> list[Record]:
    """Read a file of a test collection in the format of BEIR."""
    path = _find_file(folder, name)
    if not path:
        path = folder / name
        others = sorted(f'{path.parent.name}/{other.name}' for other in path.parent.glob(f'*{path.suffix}'))
        remedy = f'Set --split to one of {", ".join(others)}.' if others and '/' in name else 'Add the file.'
        raise UserError(f'{str(path)!r} does not exist, which a folder in the format of BEIR needs. {remedy}')
    hint = f'Name the fields of this file {_FIELDS[name.partition("/")[0]]}.'
    records = [record._replace(field_hint=hint) for record in records_lib.read_file(str(path))]
    if not records:
        raise UserError(f'{str(path)!r} has no records. Add them.')
    return records


def _check_ids(
    record: Record,
    query: str,
    queries: Mapping[str, str],
    passages: Sequence[str],
    known: Mapping[str, str],
) -> str:
    """Return the id of a query; raise UserError if it or one of the `passages` does not exist."""
    if query not in queries:
        raise record.error(f'names the query {query!r}, which does not exist')
    for passage in passages:
        if passage not in known:
            raise record.error(f'names the passage {passage!r}, which does not exist')
    return query


def _by_id(records: Sequence[Record], name: str, read: Callable[[Record], str]) -> dict[str, str]:
    """Return the text of each record by its id in the field `name`."""
    found: dict[str, str] = {}
    for record in records:
        number = str(record.get(name))
        if number in found:
            raise record.error(f'has the id {number!r} of an earlier record')
        found[number] = read(record)
    return found


def _join(record: Record) -> str:
    """Return the title and the text of a passage."""
    title = record.fields.get('title') or ''
    return f'{title} {record.text("text")}'.strip()


def nearest(queries: np.ndarray, passages: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the most similar passages, exactly; the vectors of the passages are split over all devices.

    Args:
      queries: [Q, D] vectors, compared by their inner products, or [Q, T, D] vectors of tokens, compared by
        `sentence_vectors.max_similarity`.
      passages: [N, D] vectors, or [N, S, D].
      k: number of passages per query.

    Returns:
      [Q, K] indices, the best first, and [Q, K] float32 similarities; K is at most N.
    """
    k = min(k, len(passages))
    num_queries, num_passages = _QUERIES, _PASSAGES
    if queries.ndim == 3:
        num_queries = min(8, _QUERIES)
        num_passages = min(
            num_passages, max(1, _COSINES // (num_queries * queries.shape[1] * passages.shape[1]))
        )
    best = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(passages), num_passages):
        block = jax.device_put(_pad(passages[start : start + num_passages]), _by_rows())
        size = min(num_passages, len(passages) - start)
        parts = [
            _top(jnp.asarray(queries[i : i + num_queries]), block, size, min(k, size))
            for i in range(0, len(queries), num_queries)
        ]
        scores, indices = (np.concatenate([np.asarray(part[j]) for part in parts]) for j in (0, 1))
        indices = np.concatenate([best[0], indices + start], axis=1)
        scores = np.concatenate([best[1], scores], axis=1)
        order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
        best = np.take_along_axis(indices, order, 1), np.take_along_axis(scores, order, 1)
    return best


def _by_rows() -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ('data',))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))


def _pad(vectors: np.ndarray) -> np.ndarray:
    """Add rows of zeros up to a multiple of the number of devices."""
    padding = [(0, 0)] * (vectors.ndim - 1)
    return np.pad(vectors, [(0, -len(vectors) % jax.local_device_count()), *padding])


@functools.partial(jax.jit, static_argnums=(2, 3))
def _top(queries: jax.Array, passages: jax.Array, size: int, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the k largest similarities with the first `size` passages, and their indices, each [Q, k]."""
    late = queries.ndim == 3
    scores = sentence_vectors.max_similarity(queries, passages) if late else queries @ passages.T
    return jax.lax.top_k(jnp.where(jnp.arange(len(passages)) < size, scores, -jnp.inf), k)


def similarities(query: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """Return the similarity of a query [D] or [T, D] with passages [N, D] or [N, S, D], whose vectors have length 1; [N]."""
    cosines = passages @ query.T
    if query.ndim == 1:
        return cosines
    is_token = (passages != 0).any(-1, keepdims=True)
    return np.where(is_token, cosines, -1e9).max(1)[:, (query != 0).any(-1)].sum(1)


def answerable(judgments: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the ids of the queries that have a relevant passage; see `Collection.judgments`."""
    return [query for query, relevance in judgments.items() if any(score > 0 for score in relevance.values())]


def measure(
    rankings: Mapping[str, Sequence[str]], judgments: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    """Compute the mean scores of rankings, as trec_eval does.

    Args:
      rankings: ids of passages, the best first, by query id; at least `RECALL_CUTOFF`, or all if there are fewer.
      judgments: see `Collection`. Only queries with a relevant passage count.

    Returns:
      ndcg_at_10 (Järvelin & Kekäläinen 2002, with the relevance as the gain), recall_at_100, mrr_at_10, map_at_100 (mean
      average precision) and precision_at_10.
    """
    totals: dict[str, list[float]] = {
        name: [] for name in ('ndcg_at_10', 'recall_at_100', 'mrr_at_10', 'map_at_100', 'precision_at_10')
    }
    for query in answerable(judgments):
        relevance = judgments[query]
        ideal = sorted((score for score in relevance.values() if score > 0), reverse=True)
        gains = [max(0, relevance.get(passage, 0)) for passage in rankings[query][:RECALL_CUTOFF]]
        ranks = [rank for rank, gain in enumerate(gains, 1) if gain]
        first = [rank for rank in ranks if rank <= CUTOFF]
        totals['ndcg_at_10'].append(_discounted(gains[:CUTOFF]) / _discounted(ideal[:CUTOFF]))
        totals['recall_at_100'].append(len(ranks) / len(ideal))
        totals['mrr_at_10'].append(1 / first[0] if first else 0.0)
        totals['map_at_100'].append(sum(i / rank for i, rank in enumerate(ranks, 1)) / len(ideal))
        totals['precision_at_10'].append(len(first) / CUTOFF)
    if not totals['ndcg_at_10']:
        raise UserError('No query has a relevant passage. Correct the judgments.')
    return {name: float(np.mean(values)) for name, values in totals.items()}


def _discounted(gains: Sequence[int]) -> float:
    """Sum gains divided by log2(1 + rank)."""
    return float(sum(gain / np.log2(1 + rank) for rank, gain in enumerate(gains, 1)))


def rank(
    embedder: Any, collection: Collection, query_prompt: str = '', passage_prompt: str = ''
) -> dict[str, list[str]]:
    """Rank passages for each judged query, by the similarities of their vectors.

    Args:
      embedder: an `Embedder`.
      collection: test collection.
      query_prompt: text that precedes each query.
      passage_prompt: text that precedes each passage.

    Returns:
      Ids of passages by query id, the best first: all candidates, or else the best `RECALL_CUTOFF` passages. A query
      without candidates in a collection that has some has an empty ranking.
    """
    judged = [query for query in collection.queries if query in collection.judgments]
    names = [*collection.passages]
    passages = embedder.encode([*collection.passages.values()], passage_prompt)
    queries = embedder.encode([collection.queries[query] for query in judged], query_prompt)
    if not collection.candidates:
        indices, _ = nearest(queries, passages, RECALL_CUTOFF)
        return {query: [names[i] for i in row] for query, row in zip(judged, indices, strict=True)}
    rows = {name: i for i, name in enumerate(names)}
    rankings = {}
    for i, query in enumerate(judged):
        members = np.array([rows[name] for name in collection.candidates.get(query, ())], np.int64)
        order = np.argsort(-similarities(queries[i], passages[members]), kind='stable')
        rankings[query] = [names[j] for j in members[order]]
    return rankings
