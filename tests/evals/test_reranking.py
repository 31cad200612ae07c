"""Re-ranking with a cross-encoder: its scores are those of the model, and it changes only the head of a ranking."""

import json
import random

import numpy as np
import pytest

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.data.records import Record
from bert_jax.evals import reranking, retrieval
from bert_jax.evals.prediction import Predictor
from bert_jax.train import convert, load
from tests.conftest import sentences
from tests.runs import finetune, run_in_process
from tests.train.test_convert import write_hf_folder


def has_same_subject(a, b):
    return a.split()[:2] == b.split()[:2]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Pattern of files with pairs of sentences, the second of which repeats the first word or not."""
    folder = tmp_path_factory.mktemp('pairs')
    rng = random.Random(0)
    for split, n in (('train', 64), ('validation', 16)):
        texts = sentences(rng, n)
        with (folder / f'{split}.jsonl').open('w') as file:
            for text in texts:
                other = rng.choice(texts)
                label = 'yes' if has_same_subject(text, other) else 'no'
                file.write(json.dumps({'a': text, 'b': other, 'label': label, 'value': len(other)}) + '\n')
    return f'{folder}/{{split}}.jsonl'


SETTINGS = ('data.text=a', 'data.text_pair=b', 'train.steps=10', 'data.length=16')


@pytest.fixture(scope='module')
def classifier(tmp_path_factory, pretrained, source):
    workdir = tmp_path_factory.mktemp('classifier')
    assert finetune(workdir, pretrained, source, *SETTINGS) == 0
    return workdir


@pytest.fixture(scope='module')
def collection():
    texts = sentences(random.Random(3), 8)
    return retrieval.Collection(
        {f'q{i}': text for i, text in enumerate(texts[:3])},
        {f'p{i}': f'{text} {text}' for i, text in enumerate(texts)},
        {f'q{i}': {f'p{i}': 1} for i in range(3)},
    )


def test_scores_are_those_of_prediction(classifier, collection, monkeypatch):
    pairs = [(q, p) for q in collection.queries.values() for p in collection.passages.values()]
    records = [Record(f'record {i}', {'a': a, 'b': b}) for i, (a, b) in enumerate(pairs)]
    odds = [p['probabilities']['yes'] for p in Predictor(str(classifier))(records)]
    scores = reranking.Reranker(classifier)(pairs)
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), odds, atol=1e-5)
    np.testing.assert_allclose(reranking.Reranker(classifier, 'no')(pairs), -scores, atol=1e-5)
    monkeypatch.setattr(reranking, '_CHUNK', 7)
    np.testing.assert_allclose(reranking.Reranker(classifier)(pairs), scores, atol=1e-5)


def test_regression_scores_are_its_numbers(tmp_path, pretrained, source, collection):
    settings = ('task.name=regress', 'data.label=value', *SETTINGS)
    assert finetune(tmp_path / 'run', pretrained, source, *settings) == 0
    pairs = [*zip(collection.queries.values(), collection.passages.values(), strict=False)]
    records = [Record(f'record {i}', {'a': a, 'b': b}) for i, (a, b) in enumerate(pairs)]
    expected = [p['prediction'] for p in Predictor(str(tmp_path / 'run'))(records)]
    np.testing.assert_allclose(reranking.Reranker(tmp_path / 'run')(pairs), expected, atol=1e-5)
    with pytest.raises(UserError, match="has no class 'yes': It predicts a number"):
        reranking.Reranker(tmp_path / 'run', 'yes')


def test_converted_cross_encoders_score_pairs(tmp_path):
    source = write_hf_folder(tmp_path / 'theirs', 'BertForSequenceClassification')
    convert.from_hf(str(source), tmp_path / 'ours')
    labels = load.read(tmp_path / 'ours').experiment.task.labels
    pairs = [('w1 w2', 'w3'), ('w1', 'w4 w5 w6')]
    records = [Record(f'record {i}', {'a': a, 'b': b}) for i, (a, b) in enumerate(pairs)]
    predictor = Predictor(str(tmp_path / 'ours'), ('data.text=a', 'data.text_pair=b'))
    odds = [p['probabilities'][labels[0]] for p in predictor(records)]
    scores = reranking.Reranker(tmp_path / 'ours', labels[0])(pairs)
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), odds, atol=1e-5)


def test_only_the_head_of_a_ranking_is_sorted(collection):
    def score(pairs):  # ascending by passage
        return np.array([[*collection.passages.values()].index(passage) for _, passage in pairs], float)

    rankings = {'q0': ['p1', 'p5', 'p3', 'p7'], 'q1': ['p2'], 'q2': []}
    found = reranking.rerank(score, collection, rankings, 3)
    assert found == {'q0': ['p5', 'p3', 'p1', 'p7'], 'q1': ['p2'], 'q2': []}
    ties = reranking.rerank(lambda pairs: np.zeros(len(pairs)), collection, rankings, 9)
    assert ties == rankings, 'equal scores keep the order of the search'


def test_command_reports_both_rankings(classifier, pretrained, collection, tmp_path):
    (tmp_path / 'qrels').mkdir()
    for name, texts in (('queries', collection.queries), ('corpus', collection.passages)):
        lines = [json.dumps({'_id': i, 'text': text}) for i, text in texts.items()]
        (tmp_path / f'{name}.jsonl').write_text('\n'.join(lines) + '\n')
    rows = [f'{query}\t{passage}\t1' for query, x in collection.judgments.items() for passage in x]
    (tmp_path / 'qrels' / 'test.tsv').write_text('\n'.join(['query-id\tcorpus-id\tscore', *rows]) + '\n')
    out = tmp_path / 'scores.json'
    words = (f'--checkpoint={pretrained}', f'--source={tmp_path}', f'--out={out}', f'--reranker={classifier}')
    done = run_in_process('bert_jax.bin.eval_retrieval', *words, '--rerank=5')
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    embedder = bert_jax.load_embedder(pretrained)
    rankings = retrieval.rank(embedder, collection)
    assert result['scores'] == retrieval.measure(rankings, collection.judgments)
    rankings = reranking.rerank(reranking.Reranker(classifier), collection, rankings, 5)
    assert result['reranked'] == retrieval.measure(rankings, collection.judgments)
    assert done.stdout.splitlines()[1].split() == ['search', 'reranked']
    done = run_in_process('bert_jax.bin.eval_retrieval', *words[:3], '--reranker_label=yes')
    assert '--reranker_label needs --reranker' in done.stderr


def test_checkpoints_without_pairs_are_errors(pretrained, finetuned, classifier):
    for path, label, message in (
        (pretrained, '', "on the task 'mlm', which scores no pairs"),
        (finetuned, '', 'was trained on single texts'),
        (classifier, 'maybe', "has no class 'maybe'"),
    ):
        with pytest.raises(UserError, match=message):
            reranking.Reranker(path, label)
