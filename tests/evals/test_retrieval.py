"""Exact search, the scores of rankings, and test collections from folders and TFDS."""

import gzip
import json
import math

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.evals import retrieval
from bert_jax.evals.embedder import Embedder
from tests.runs import run_in_process


@pytest.mark.parametrize('block', [7, 1000])
def test_nearest_is_exact(block, monkeypatch):
    monkeypatch.setattr(retrieval, '_PASSAGES', block)
    monkeypatch.setattr(retrieval, '_QUERIES', 3)
    rng = np.random.default_rng(0)
    queries, passages = (
        rng.normal(size=(5, 4)).astype(np.float32),
        rng.normal(size=(30, 4)).astype(np.float32),
    )
    indices, scores = retrieval.nearest(queries, passages, 9)
    products = queries @ passages.T
    np.testing.assert_array_equal(indices, np.argsort(-products, axis=1)[:, :9])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :9], rtol=1e-5)
    assert retrieval.nearest(queries, passages[:3], 9)[0].shape == (5, 3)
    queries, passages = (x.reshape(len(x), 2, 2).copy() for x in (queries, passages))
    passages[::3, 1] = 0  # padding
    queries, passages = (
        x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9) for x in (queries, passages)
    )
    monkeypatch.setattr(retrieval, '_COSINES', 3 * 4 * block)
    indices, scores = retrieval.nearest(queries, passages, 9)
    for query, row, found in zip(queries, indices, scores, strict=True):
        expected = retrieval.similarities(query, passages)
        np.testing.assert_allclose(found, -np.sort(-expected)[:9], rtol=1e-5)
        np.testing.assert_allclose(expected[row], found, rtol=1e-5)


def test_scores_of_rankings_by_hand():
    judgments = {'q1': {'a': 2, 'b': 1, 'x': 0}, 'q2': {'c': 1}, 'q3': {'a': 0}}
    rankings = {'q1': ['b', 'x', 'a'], 'q2': [*'abdefghijk', 'c']}
    found = retrieval.measure(rankings, judgments)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert found['ndcg_at_10'] == pytest.approx((1 / math.log2(2) + 2 / math.log2(4)) / ideal / 2)
    assert found['recall_at_100'] == 1
    assert found['mrr_at_10'] == pytest.approx(0.5)
    assert found['precision_at_10'] == pytest.approx(0.1)
    assert found['map_at_100'] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 11) / 2)
    with pytest.raises(UserError, match='No query has a relevant passage'):
        retrieval.measure({}, {'q3': {'a': 0}})


@pytest.fixture
def collection(tmp_path):
    """A folder in the format of BEIR, in which each query is the beginning of its passage."""
    texts = ['the old dog sleeps', 'every student carries a letter', 'a quiet sailor watches the birds']
    (tmp_path / 'qrels').mkdir()
    with (tmp_path / 'corpus.jsonl').open('w') as file:
        for i, text in enumerate(texts):
            file.write(json.dumps({'_id': f'p{i}', 'title': '', 'text': text}) + '\n')
    with (tmp_path / 'queries.jsonl').open('w') as file:
        for i, text in enumerate(texts):
            file.write(json.dumps({'_id': f'q{i}', 'text': text[:12]}) + '\n')
    rows = ''.join(f'q{i}\tp{i}\t1\n' for i in range(3))
    (tmp_path / 'qrels' / 'test.tsv').write_text('query-id\tcorpus-id\tscore\n' + rows)
    return tmp_path


def test_command_scores_a_folder(collection, pretrained, tmp_path):
    words = (f'--checkpoint={pretrained}', f'--source={collection}', f'--out={tmp_path}/scores.json')
    done = run_in_process('bert_jax.bin.eval_retrieval', *words)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'scores.json').read_text())
    assert (result['queries'], result['passages']) == (3, 3)
    assert result['scores']['recall_at_100'] == 1
    assert result['scores']['ndcg_at_10'] > 0.7
    assert f'ndcg_at_10  {result["scores"]["ndcg_at_10"]:.4f}' in done.stdout


def test_files_may_be_compressed(collection):
    expected = retrieval.read_collection(str(collection))
    for name in ('corpus.jsonl', 'queries.jsonl', 'qrels/test.tsv'):
        content = (collection / name).read_bytes()
        (collection / f'{name}.gz').write_bytes(gzip.compress(content))
        (collection / name).unlink()
    assert retrieval.read_collection(str(collection)) == expected


def test_odd_judgments_are_named(collection, caplog):
    path = collection / 'qrels' / 'test.tsv'
    rows = path.read_text()
    path.write_text(rows + 'q1\tp1\t1\n')  # the same again
    assert retrieval.read_collection(str(collection)).judgments['q1'] == {'p1': 1}
    path.write_text(rows + 'q1\tp1\t2\n')
    with pytest.raises(
        UserError, match='line 5, has the score 2, but an earlier record for the same passage has 1'
    ):
        retrieval.read_collection(str(collection))
    path.write_text(rows)
    (collection / 'top_ranked').mkdir()
    (collection / 'top_ranked/test.jsonl').write_text('{"query-id": "q0", "corpus-ids": ["p0"]}\n')
    retrieval.read_collection(str(collection))
    assert '2 of 3 queries have no candidates' in caplog.text
    path.write_text(rows.replace('\t1\n', '\t0\n'))
    with pytest.raises(UserError, match='No query of .* has a relevant passage'):
        retrieval.read_collection(str(collection))


def test_invalid_collections_are_errors(collection):
    path = collection / 'qrels' / 'test.tsv'
    path.write_text(path.read_text() + 'q1\tp9\t1\n')
    with pytest.raises(UserError, match="test.tsv, line 5, names the passage 'p9', which does not exist"):
        retrieval.read_collection(str(collection))
    path.write_text('query-id\tcorpus-id\tscore\nq1\tp1\tgood\n')
    with pytest.raises(UserError, match="has the score 'good', which is not an integer"):
        retrieval.read_collection(str(collection))
    with pytest.raises(UserError, match=r"dev.tsv' does not exist.* Set --split to one of qrels/test.tsv"):
        retrieval.read_collection(str(collection), 'dev')
    path.write_text('query\tcorpus-id\tscore\nq1\tp1\t1\n')
    with pytest.raises(
        UserError, match=r"no field 'query-id'.* Name the fields of this file query-id, corpus-id"
    ):
        retrieval.read_collection(str(collection))
    with pytest.raises(UserError, match="'nothing/here' is no folder, and no prepared data set"):
        retrieval.read_collection('nothing/here')
    corpus = collection / 'corpus.jsonl'
    corpus.write_text(corpus.read_text() + '{"_id": "p1", "title": "", "text": "again"}\n')
    with pytest.raises(UserError, match="line 4, has the id 'p1' of an earlier record"):
        retrieval.read_collection(str(collection))
    corpus.write_text('{"id": "p1", "text": "again"}\n')
    with pytest.raises(
        UserError, match=r"line 1, has no field '_id'.* Name the fields of this file _id, text"
    ):
        retrieval.read_collection(str(collection))


def write_candidates(folder, candidates):
    (folder / 'top_ranked').mkdir()
    lines = [json.dumps({'query-id': query, 'corpus-ids': names}) for query, names in candidates.items()]
    (folder / 'top_ranked' / 'test.jsonl').write_text('\n'.join(lines) + '\n')


def test_only_candidates_are_ranked(collection, pretrained):
    write_candidates(collection, {'q0': ['p2', 'p0'], 'q1': ['p0', 'p2', 'p0']})
    found = retrieval.read_collection(str(collection))
    embedder = Embedder(pretrained)
    rankings = retrieval.rank(embedder, found)
    assert {query: sorted(names) for query, names in rankings.items()} == {
        'q0': ['p0', 'p2'],
        'q1': ['p0', 'p2'],
        'q2': [],
    }
    vectors = embedder.encode([*found.passages.values()])
    scores = dict(zip(found.passages, vectors @ embedder.encode(found.queries['q1']), strict=True))
    assert scores[rankings['q1'][0]] > scores[rankings['q1'][1]]
    assert retrieval.measure(rankings, found.judgments)['recall_at_100'] == pytest.approx(1 / 3)
    (collection / 'top_ranked' / 'test.jsonl').write_text('{"query-id": "q0", "corpus-ids": ["p9"]}\n')
    with pytest.raises(UserError, match="names the passage 'p9', which does not exist"):
        retrieval.read_collection(str(collection))
