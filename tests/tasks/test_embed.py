"""Text embeddings: pooling, the losses and their gradients, and vectors of texts from trained models."""

import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.data.pipeline import stack
from bert_jax.data.records import Record
from bert_jax.data.text_tuples import TupleConfig
from bert_jax.evals import retrieval, scoring, vector_files, vector_scores
from bert_jax.modeling import module, sentence_vectors
from bert_jax.modeling.sentence_vectors import ForEmbedding
from bert_jax.tasks import embed
from tests.conftest import sentences
from tests.modeling import tiny
from tests.runs import ROOT, TINY, run_in_process, train_command

CONFIG = ROOT / 'configs' / 'finetune' / 'embed.py'

LENGTH = 8


def make_task(tokenizer, texts=('a', 'b'), data=None, **settings):
    return embed.Task(
        embed.Config(**settings),
        TupleConfig('x.jsonl', texts=texts, length=LENGTH, **(data or {})),
        tokenizer,
    )


@pytest.fixture(scope='module')
def graph_and_params():
    config = tiny.config(vocab_size=4000)
    graph, shapes, _ = module.abstract(lambda rngs: ForEmbedding(config, rngs, 'mean', 3))
    rng = np.random.default_rng(0)
    return graph, {
        n: jnp.asarray(rng.normal(n.endswith('scale'), 0.3, s.shape), s.dtype) for n, s in shapes.items()
    }


@pytest.fixture(scope='module')
def model(graph_and_params):
    return module.merge(*graph_and_params)


def make_records(n=8, texts=('a', 'b')):
    rng = np.random.default_rng(1)
    return [
        Record(
            f'record {i}',
            {t: ' '.join(f'w{j}' for j in rng.integers(0, 90, rng.choice([2, 5, 8]))) for t in texts}
            | {'label': i % 3},
        )
        for i in range(n)
    ]


def make_batch(task, records):
    return {
        k: jnp.asarray(x)
        for k, x in stack([task.example(row, None) for row in task.make_examples(records).rows]).items()
    }


def encode(model, batch, column):
    """Vectors of one column of texts, one text at a time, without padding."""
    found = []
    for tokens, valid in zip(batch['tokens'][:, column], batch['valid'][:, column], strict=True):
        hidden = model(tokens[None, : int(valid.sum())]).hidden_states[-1][0]
        found.append(np.asarray(hidden, np.float64).mean(0))
    return np.stack(found)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def value(output, name):
    return float(output.losses[name].value())


@pytest.mark.parametrize(
    ('kind', 'function'),
    [
        ('mean', lambda h: h.mean(0)),
        ('cls', lambda h: h[0]),
        ('max', lambda h: h.max(0)),
        ('last', lambda h: h[-1]),
        (
            'weighted',
            lambda h: (h * np.arange(1, len(h) + 1)[:, None]).sum(0) / np.arange(1, len(h) + 1).sum(),
        ),
    ],
)
def test_pooling_leaves_out_padding(kind, function):
    hidden = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    sizes = [6, 3, 1, 5]
    valid = np.arange(6) < np.array(sizes)[:, None]
    found = sentence_vectors.pool(jnp.asarray(hidden), jnp.asarray(valid), kind)
    np.testing.assert_allclose(
        found, [function(h[:n]) for h, n in zip(hidden, sizes, strict=True)], rtol=1e-5, atol=1e-6
    )
    whole = sentence_vectors.pool(jnp.asarray(hidden), None, kind)
    np.testing.assert_allclose(whole, [function(h) for h in hidden], rtol=1e-5, atol=1e-6)


def test_contrastive_loss_ranks_all_texts_of_the_batch(word_tokenizer, model):
    texts = ('a', 'b', 'hard')
    task = make_task(word_tokenizer, texts, temperature=0.1)
    records = make_records(texts=texts)
    batch = make_batch(task, records)
    anchors, positives, hard = (unit(encode(model, batch, i)) for i in range(3))
    logits = anchors @ np.concatenate([positives, hard]).T / 0.1
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert value(task.loss(model, batch, None), 'contrastive_loss') == pytest.approx(
        -np.diag(logs).mean(), rel=1e-4
    )
    pair_task = make_task(word_tokenizer, temperature=0.1, symmetric=True)
    pairs = make_batch(pair_task, records)
    logits = anchors @ positives.T / 0.1
    both = [-np.diag(x - np.log(np.exp(x).sum(1, keepdims=True))).mean() for x in (logits, logits.T)]
    assert value(pair_task.loss(model, pairs, None), 'contrastive_loss') == pytest.approx(
        np.mean(both), rel=1e-4
    )
    padded = pairs | {'row_weight': jnp.array([1.0] * 5 + [0.0] * 3)}
    first = make_batch(pair_task, records[:5])
    expected = value(pair_task.loss(model, first, None), 'contrastive_loss')
    assert value(pair_task.loss(model, padded, None), 'contrastive_loss') == pytest.approx(expected, rel=1e-5)


def test_cosine_and_class_losses(word_tokenizer, model, graph_and_params):
    task = make_task(word_tokenizer, objective='cosine', data={'label_scale': 2.0})
    batch = make_batch(task, make_records())
    u, v = encode(model, batch, 0), encode(model, batch, 1)
    cosines = (unit(u) * unit(v)).sum(1)
    expected = np.mean((cosines - np.arange(8) % 3 / 2) ** 2)
    output = task.loss(model, batch, None)
    assert value(output, 'squared_error') == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(output.outputs['similarity'], cosines, atol=1e-5)
    scores = task.scores({k: np.asarray(x) for k, x in output.outputs.items()}, None)
    assert scores['pearson'] == pytest.approx(np.corrcoef(cosines, np.arange(8) % 3)[0, 1], abs=1e-4)
    classes = make_task(
        word_tokenizer, objective='classes', labels=('x', 'y', 'z'), data={'label_names': ('x', 'y', 'z')}
    )
    batch = make_batch(classes, make_records())
    params = graph_and_params[1]
    logits = np.concatenate([u, v, np.abs(u - v)], 1) @ np.asarray(params['classifier/kernel']) + np.asarray(
        params['classifier/bias']
    )
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -logs[np.arange(8), np.arange(8) % 3].mean()
    assert value(classes.loss(model, batch, None), 'cross_entropy') == pytest.approx(expected, rel=1e-4)


def test_narrow_vectors_add_their_losses(word_tokenizer, model):
    task = make_task(word_tokenizer, widths=(8, 16))
    batch = make_batch(task, make_records())
    output = task.loss(model, batch, None)
    for width in (8, 16):
        a, b = (unit(encode(model, batch, i)[:, :width]) for i in (0, 1))
        logits = a @ b.T / 0.05
        expected = -np.diag(logits - np.log(np.exp(logits).sum(1, keepdims=True))).mean()
        assert value(output, f'contrastive_loss/{width}') == pytest.approx(expected, rel=1e-3)
    assert {*output.losses} == {'contrastive_loss', 'contrastive_loss/8', 'contrastive_loss/16'}


def plain_max_similarity(query, passage):
    """MaxSim of two lists of vectors, by definition."""
    return sum(max(unit(q) @ unit(p) for p in passage) for q in query)


def test_late_interaction_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    sizes = [(3, 5, 1), (4, 2, 6, 3)]
    texts = [[rng.normal(size=(n, 5)).astype(np.float32) for n in column] for column in sizes]
    padded = [np.stack([np.pad(x, [(0, 7 - len(x)), (0, 0)]) for x in column]) for column in texts]

    def total(function):  # with different weights, so that each pair has its own gradient
        return sum(function(i, j) * (i + 2 * j + 1) for i in range(3) for j in range(4))

    def ours(queries, passages):
        found = sentence_vectors.max_similarity(queries, passages)
        return total(lambda i, j: found[i, j])

    def plain(queries, passages):
        def score(i, j):
            best = 0.0
            for t in range(sizes[0][i]):
                q = queries[i, t]
                cosines = [
                    q @ p / jnp.linalg.norm(q) / jnp.linalg.norm(p) for p in passages[j, : sizes[1][j]]
                ]
                best += jnp.max(jnp.stack(cosines))
            return best

        return total(score)

    found = sentence_vectors.max_similarity(*map(jnp.asarray, padded))
    expected = [[plain_max_similarity(q, p) for p in texts[1]] for q in texts[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    gradients = [jax.grad(f, (0, 1))(*map(jnp.asarray, padded)) for f in (ours, plain)]
    for a, b, column in zip(*gradients, sizes, strict=True):
        for i, n in enumerate(column):
            np.testing.assert_allclose(a[i, :n], b[i, :n], rtol=1e-4, atol=1e-5)
            assert not np.any(a[i, n:])


def test_late_interaction_ranks_all_texts_of_the_batch(word_tokenizer):
    config = tiny.config(vocab_size=4000)
    task = make_task(word_tokenizer, pooling='tokens', output_width=6, temperature=0.5, symmetric=True)
    graph, shapes, _ = module.abstract(lambda rngs: task.build_model(config, rngs))
    rng = np.random.default_rng(0)
    params = {
        n: jnp.asarray(rng.normal(n.endswith('scale'), 0.3, s.shape), s.dtype) for n, s in shapes.items()
    }
    model = module.merge(graph, params)
    batch = make_batch(task, make_records())
    columns = []
    for column in range(2):  # one text at a time, without padding
        columns.append([])
        for tokens, valid in zip(batch['tokens'][:, column], batch['valid'][:, column], strict=True):
            hidden = np.asarray(model(tokens[None, : int(valid.sum())]).hidden_states[-1][0])
            columns[-1].append(hidden @ params['projection/kernel'] + params['projection/bias'])
    logits = np.array([[plain_max_similarity(q, p) for p in columns[1]] for q in columns[0]]) / 0.5
    backward = np.array([[plain_max_similarity(q, p) for p in columns[0]] for q in columns[1]]) / 0.5
    losses = [-np.diag(x - np.log(np.exp(x).sum(1, keepdims=True))).mean() for x in (logits, backward)]
    output = task.loss(model, batch, None)
    assert value(output, 'contrastive_loss') == pytest.approx(np.mean(losses), rel=1e-4)
    np.testing.assert_allclose(output.outputs['similarity'], np.diag(logits) * 0.5, rtol=1e-4)

    def loss(params, chunks):
        chunked = make_task(word_tokenizer, pooling='tokens', output_width=6, chunks=chunks)
        result = chunked.loss(module.merge(graph, params), batch, jax.random.key(0))
        return result.losses['contrastive_loss'].value()

    gradients = [jax.jit(jax.grad(loss), static_argnums=1)(params, chunks) for chunks in (1, 4)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *gradients)
    assert all(np.isfinite(x).all() for x in gradients[0].values())


def test_chunks_and_devices_do_not_change_loss_and_gradients(word_tokenizer, graph_and_params):
    graph, params = graph_and_params
    records = make_records(16)
    results = []
    mesh = Mesh(np.array(jax.devices()[:4]), ('data',))
    for chunks, sharding in ((1, None), (4, None), (8, None), (2, NamedSharding(mesh, P('data')))):
        task = make_task(word_tokenizer, chunks=chunks)
        batch = make_batch(task, records)
        if sharding:
            batch = jax.device_put(batch, sharding)

        @jax.jit
        def loss(params, batch, task=task):
            return (
                task.loss(module.merge(graph, params), batch, jax.random.key(0))
                .losses['contrastive_loss']
                .value()
            )

        results.append(jax.value_and_grad(loss)(params, batch))
    for found in results[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, results[0])
    task = make_task(word_tokenizer, chunks=5)
    with pytest.raises(UserError, match='task.chunks=5 does not divide the 32 texts'):
        task.loss(module.merge(graph, params), make_batch(task, records), jax.random.key(0))


def test_single_texts_are_their_own_positives(word_tokenizer, model):
    task = make_task(word_tokenizer, ('a',))
    batch = make_batch(task, make_records())
    a = unit(encode(model, batch, 0))
    logits = a @ a.T / 0.05
    expected = -np.diag(logits - np.log(np.exp(logits).sum(1, keepdims=True))).mean()
    assert value(task.loss(model, batch, None), 'contrastive_loss') == pytest.approx(
        expected, rel=1e-3, abs=1e-5
    )


def test_inconsistent_settings_are_errors(word_tokenizer):
    for texts, settings, data, message in (
        (('a',), {'objective': 'cosine'}, {}, 'needs a pair'),
        (('a', 'b', 'c'), {'objective': 'cosine'}, {}, 'needs a pair'),
        ((), {}, {}, 'data.texts is empty'),
        (('a', 'b'), {}, {'prompts': ('q: ',)}, 'data.prompts has 1 prompts for the 2 fields'),
        (('a', 'b'), {}, {'label_scale': 0.0}, 'data.label_scale=0.0 must be above 0'),
        (('a', 'b'), {'widths': (0,)}, {}, 'a width below 1'),
        (('a', 'b'), {'objective': 'cosine', 'pooling': 'tokens'}, {}, 'needs one vector for each text'),
    ):
        with pytest.raises(UserError, match=message):
            make_task(word_tokenizer, texts, data, **settings)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, pretrained):
    """Working directory of an encoder that has learned which sentences have the same subject."""
    folder = tmp_path_factory.mktemp('embed')
    rng = random.Random(0)
    texts = sentences(rng, 120)
    for split, part in (('train', texts[:96]), ('validation', texts[96:])):
        with (folder / f'{split}.jsonl').open('w') as file:
            for text in part:
                other = rng.choice(part)
                label = float(text.split()[:2] == other.split()[:2])
                file.write(json.dumps({'sentence1': text, 'sentence2': other, 'label': label}) + '\n')
    source = f'{folder}/{{split}}.jsonl'
    settings = (
        'data.label_scale=1.0',
        'data.length=32',
        'train.steps=40',
        'train.batch_size=16',
        'optim.learning_rate=0.005',
    )
    settings = (*settings, f'data.source={source}', f'init.checkpoint={pretrained}', 'train.length_buckets=1')
    assert train_command.run(f'{CONFIG}:stsb', folder / 'run', settings) == 0
    return folder / 'run', source


def test_encoders_of_other_tasks_are_scored_by_similarities(trained, pretrained, tmp_path):
    workdir, source = trained
    spec, settings = f'{CONFIG}:stsb', (f'data.source={source}', 'data.label_scale=1.0', 'data.length=32')
    expected = scoring.Scorer(spec, settings, 'embed')(workdir)['scores']
    found = vector_scores.PairScorer(spec, settings)(workdir)['scores']
    assert found['pearson'] == pytest.approx(expected['pearson'], abs=1e-6)
    assert found['spearman'] == pytest.approx(expected['spearman'], abs=1e-2)  # rounding may swap ranks
    arguments = (
        f'--checkpoint={pretrained}',
        f'--out={tmp_path}/scores.json',
        f'--config.data.source={source}',
    )
    done = run_in_process('bert_jax.bin.eval_embed', f'--config={spec}', *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'scores.json').read_text())['scores']['spearman'] < expected['spearman']
    done = run_in_process('bert_jax.bin.eval_embed', f'--config={CONFIG}:nli', *arguments)
    assert "has task.objective='classes', but an encoder" in done.stderr
    assert vector_scores.PairScorer(spec, (*settings, 'train.eval_rows=7'))(workdir)['rows'] == 7
    with pytest.raises(UserError, match='has 1 fields, but similarities are those of pairs'):
        vector_scores.PairScorer(spec, (*settings, "data.texts=('a',)"))


def test_training_separates_subjects(trained, pretrained):
    workdir, source = trained
    scorer = scoring.Scorer(
        f'{CONFIG}:stsb', (f'data.source={source}', 'data.label_scale=1.0', 'data.length=32'), 'embed'
    )
    scores = scorer(workdir)['scores']
    assert scores['spearman'] > 0.5
    with (workdir.parent / 'validation.jsonl').open() as file:
        records = [json.loads(line) for line in file]
    embedder = bert_jax.load_embedder(workdir)
    a, b = (embedder.encode([r[k] for r in records]) for k in ('sentence1', 'sentence2'))
    error = np.mean(((a * b).sum(1) - [r['label'] for r in records]) ** 2)
    assert scores['squared_error'] == pytest.approx(error, rel=1e-3)
    before = bert_jax.load_embedder(pretrained)
    a, b = (before.encode([r[k] for r in records]) for k in ('sentence1', 'sentence2'))
    assert error < np.mean(((a * b).sum(1) - [r['label'] for r in records]) ** 2)


def test_vectors_do_not_depend_on_the_batch(pretrained):
    embedder = bert_jax.load_embedder(pretrained)
    texts = [' '.join(sentences(random.Random(i), 1 + i % 3))[: 5 + 7 * i] for i in range(23)]
    vectors = embedder.encode(texts, batch_size=5)
    assert vectors.shape == (23, embedder.width)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for i in (0, 7, 22):
        np.testing.assert_allclose(embedder.encode(texts[i]), vectors[i], atol=1e-5)
    model, tokenizer = bert_jax.load(pretrained)
    batch = tokenizer([texts[3]], max_length=32)
    hidden = np.asarray(model(**batch).hidden_states[-1])[0][batch['valid'][0]]
    np.testing.assert_allclose(embedder.encode(texts[3], normalize=False), hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        embedder.encode('student', prompt='every '), embedder.encode('every student'), atol=1e-6
    )
    assert embedder.encode([]).shape == (0, embedder.width)
    with pytest.raises(UserError, match=r'texts\[1\] is None'):
        embedder.encode(['a', None])
    with pytest.raises(UserError, match='texts is None'):
        embedder.encode(None)


def test_late_interaction_from_training_to_search(trained, pretrained, tmp_path):
    source = trained[1]
    settings = (
        f'data.source={source}',
        f'init.checkpoint={pretrained}',
        'task.objective=contrastive',
        'task.pooling=tokens',
        'task.output_width=8',
        'task.temperature=1.0',
        'data.length=16',
        'train.steps=2',
        'train.batch_size=16',
        'train.length_buckets=1',
    )
    assert train_command.run(f'{CONFIG}:stsb', tmp_path / 'run', settings) == 0
    embedder = bert_jax.load_embedder(tmp_path / 'run')
    texts = sentences(random.Random(5), 11)
    vectors = embedder.encode([*texts, texts[0].split()[0]], batch_size=4)
    tokens = [len(ids) + 2 for ids in embedder.tokenizer.encode([*texts, texts[0].split()[0]])]
    assert vectors.shape == (12, min(16, max(tokens)), 8)
    for x, n in zip(vectors, tokens, strict=True):
        np.testing.assert_allclose(np.linalg.norm(x[:n], axis=1), 1, rtol=1e-5)
        assert not x[n:].any()
    np.testing.assert_allclose(embedder.encode(texts[3])[: tokens[3]], vectors[3][: tokens[3]], atol=1e-5)
    collection = retrieval.Collection(
        {f'q{i}': text for i, text in enumerate(texts[:4])},
        {f'p{i}': text for i, text in enumerate(texts)},
        {f'q{i}': {f'p{i}': 1} for i in range(4)},
    )
    rankings = retrieval.rank(embedder, collection)
    for i in range(4):
        scores = {
            f'p{j}': plain_max_similarity(vectors[i][: tokens[i]], vectors[j][: tokens[j]]) for j in range(11)
        }
        found = [scores[name] for name in rankings[f'q{i}']]
        np.testing.assert_allclose(found, sorted(scores.values(), reverse=True), rtol=1e-5)
    candidates = {query: [*collection.passages] for query in rankings}
    assert retrieval.rank(embedder, collection._replace(candidates=candidates)) == rankings
    with pytest.raises(UserError, match='a vector for each token'):
        vector_files.embed(embedder, [], tmp_path / 'vectors', {})
    with pytest.raises(UserError, match='a vector for each token'):
        vector_files.Index(tmp_path / 'vectors', embedder)


def test_truncated_texts_are_counted(pretrained, caplog):
    embedder = bert_jax.load_embedder(pretrained, length=8)
    room = 8 - 2
    texts = sentences(random.Random(5), 5)
    tokens = [len(ids) for ids in embedder.tokenizer.encode(texts)]
    short = embedder.tokenizer.decode(embedder.tokenizer.encode(texts[:1])[0][:room])
    caplog.set_level('INFO')
    embedder.encode([*texts, short])
    count = sum(n > room for n in tokens)
    assert count
    assert f'{count} of 6 texts are truncated to 8 tokens' in caplog.text
    caplog.clear()
    embedder.encode([short])
    assert 'truncated' not in caplog.text


def test_classes_and_clusters_are_found_in_the_vectors(finetuned, labeled, tmp_path):
    words = (f'--config={TINY}:classify', f'--checkpoint={finetuned}', f'--out={tmp_path}/scores.json')
    done = run_in_process('bert_jax.bin.eval_embed', *words, f'--config.data.source={labeled}')
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / 'scores.json').read_text())['scores']
    assert scores['accuracy'] > 0.9, 'one word determines the class'
    assert scores['accuracy'] > scores['majority']
    assert 0 <= scores['v_measure'] <= 1
    done = run_in_process(
        'bert_jax.bin.eval_embed', *words, f'--config.data.source={labeled}', '--config.data.text_pair=text'
    )
    assert 'reads pairs of texts' in done.stderr
