"""The adapter for MTEB, and the scores of MTEB on the same vectors; see `make_golden_mteb`."""

import importlib.util
import types

import numpy as np
import pytest

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.data.text_tuples import TupleConfig
from bert_jax.evals import mteb_model, retrieval, vector_scores
from bert_jax.tasks import embed
from tests.evals import golden_mteb

EXPECTED = golden_mteb.read()


@pytest.mark.parametrize('kind', ['Retrieval', 'Reranking'])
def test_scores_of_rankings_are_those_of_mteb(kind):
    collection = golden_mteb.make_collection(kind == 'Reranking')
    rankings = retrieval.rank(golden_mteb.Lookup(), collection)
    found = retrieval.measure(rankings, collection.judgments)
    assert found == pytest.approx(EXPECTED[kind], abs=2e-5), 'MTEB rounds to five digits'
    assert all(0 < value < 1 for value in found.values())


def test_correlations_are_those_of_mteb(word_tokenizer):
    vectors = golden_mteb.make_vectors()
    pairs = [(vectors[f'a{i}'], vectors[f'b{i}']) for i in range(golden_mteb.PAIRS)]
    outputs = {
        'similarity': np.array([a @ b for a, b in pairs]),
        'label': golden_mteb.make_similarities() / 5,
    }
    task = embed.Task(embed.Config(objective='cosine'), TupleConfig('x.jsonl'), word_tokenizer)
    assert task.scores(outputs, None) == pytest.approx(EXPECTED['STS'], abs=1e-6)


def test_accuracy_is_that_of_mteb():
    lookup, labels = golden_mteb.Lookup(), golden_mteb.make_labels()
    train, test = (lookup.encode([f'{split}{i}' for i in range(60)]) for split in ('train', 'test'))
    found = vector_scores.score_vectors(train, labels, test, labels)
    assert found['accuracy'] == pytest.approx(EXPECTED['Classification']['accuracy'])
    assert found['majority'] < found['accuracy'] < 1


def test_vectors_and_similarities(pretrained):
    model = mteb_model.Encoder(pretrained, prompts={'query': 'every '})
    embedder = bert_jax.load_embedder(pretrained)
    batches = [{'text': ['student', 'a small bird']}, {'text': ['the river']}]
    found = model.encode(batches, task_metadata=None, prompt_type=types.SimpleNamespace(value='query'))
    expected = embedder.encode(['every student', 'every a small bird', 'every the river'])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = model.encode(batches, prompt_type=types.SimpleNamespace(value='document'))
    np.testing.assert_allclose(plain, embedder.encode(['student', 'a small bird', 'the river']), atol=1e-5)
    np.testing.assert_allclose(model.similarity(found, plain), found @ plain.T, atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(found, plain), (found * plain).sum(1), atol=1e-6)
    with pytest.raises(UserError, match="prompts has the key 'passage'"):
        mteb_model.Encoder(pretrained, prompts={'passage': ''})


def test_missing_mteb_is_one_message(pretrained):
    if importlib.util.find_spec('mteb'):
        pytest.skip('MTEB is installed')
    with pytest.raises(UserError, match='pip install "mteb>=2"'):
        mteb_model.make(pretrained)
