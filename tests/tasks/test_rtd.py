"""Replaced-token detection: loss, gradients, shared embeddings, evaluation and training."""

import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import bert_jax
from bert_jax import optim
from bert_jax.core import partitioning
from bert_jax.core.config import build_section
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import MeshConfig
from bert_jax.data import rows as rows_lib
from bert_jax.data.pipeline import Batches
from bert_jax.data.prepare import TextConfig
from bert_jax.evals.evaluator import Evaluator
from bert_jax.evals.fill_mask import MaskFiller
from bert_jax.modeling import bert, module
from bert_jax.modeling.replaced_tokens import sample_tokens
from bert_jax.planning import abstract_step, plan
from bert_jax.studies import hidden_states
from bert_jax.tasks import Examples, rtd
from bert_jax.train import convert, inputs, load
from bert_jax.train import experiment as experiment_lib
from bert_jax.train import state as state_lib
from bert_jax.train.experiment import TrainConfig
from bert_jax.train.flops import matmul_flops
from bert_jax.train.phases import Phase
from tests import runs
from tests.train.test_step import assert_same, update

LENGTH = 16
SHAPE = dict(size='tiny', width=32, heads=4, mlp_width=64, max_positions=LENGTH, dropout=0.0, attention_dropout=0.0)  # fmt: skip


def make_task(tokenizer, **settings):
    return rtd.Task(rtd.Config(mask_rate=0.3, **settings), TextConfig(), tokenizer)


@pytest.fixture(scope='module')
def packed(tokenizer):
    """Eight rows of 6 to 13 tokens."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, len(tokenizer), 4 + i) for i in range(8)]
    return [rows_lib.pack(text, None, 0, LENGTH, tokenizer) for text in texts]


@pytest.fixture(scope='module')
def batch(tokenizer, packed):
    return Batches(packed, make_task(tokenizer).example, 8, seed=0)(0)


def make_model(task, **settings):
    """Structure of a model and its parameters, of which offsets are zero and the others large."""
    config = bert.Config(vocab_size=len(task.tokenizer), **SHAPE | settings)
    graph, shapes, _ = module.abstract(functools.partial(task.build_model, config))
    rng = np.random.default_rng(0)
    return graph, {
        name: jnp.asarray(
            rng.normal(name.endswith('scale'), 0.0 if name.endswith('delta') else 0.3, shape.shape),
            jnp.float32,
        )
        for name, shape in shapes.items()
    }


def compute_loss(task, graph, params, batch):
    output = jax.jit(lambda params, batch: task.loss(module.merge(graph, params), batch, None))(params, batch)
    return {k: float(m.value()) for k, m in jax.device_get(output.losses | output.metrics).items()}


def gradients(task, graph, params, batch, *terms):
    """Gradients of the sum of some terms of the loss, or of all terms."""

    def loss(params):
        losses = task.loss(module.merge(graph, params), batch, None).losses
        return sum((losses[name].value() for name in terms or losses), jnp.float32(0))

    return jax.jit(jax.grad(loss))(params)


def test_loss_is_that_of_the_definition(tokenizer, batch):
    task = make_task(tokenizer, embedding_sharing='none')
    graph, params = make_model(task)
    run = jax.jit(lambda *args: module.merge(graph, params)(*args).logits)
    generate = jax.jit(lambda *args: module.merge(graph, params).generator(*args).logits)
    counts = {name: [] for name in ('mlm_loss', 'mlm_accuracy', 'rtd_loss', 'rtd_accuracy', 'is_replaced')}
    for i in range(8):
        row = {name: value[i : i + 1] for name, value in batch.items()}
        inputs_ = [row[name] for name in ('tokens', 'segments', 'valid')]
        (logits,) = np.asarray(generate(*inputs_), np.float64)
        tokens, is_replaced = inputs_[0].copy(), np.zeros(LENGTH, bool)
        for k in np.flatnonzero(row['weights'][0]):
            position, label = row['positions'][0, k], row['labels'][0, k]
            assert tokens[0, position] == tokenizer.mask
            probabilities = np.exp(logits[position]) / np.exp(logits[position]).sum()
            counts['mlm_loss'].append(-np.log(probabilities[label]))
            counts['mlm_accuracy'].append(probabilities.argmax() == label)
            sample = np.searchsorted(np.cumsum(probabilities), row['sampling_noise'][0, k], side='right')
            tokens[0, position], is_replaced[position] = sample, sample != label
        (log_odds,) = np.asarray(run(tokens, *inputs_[1:]), np.float64)
        for j in np.flatnonzero(row['valid'][0]):
            probability = 1 / (1 + np.exp(-log_odds[j]))
            counts['rtd_loss'].append(-np.log(probability if is_replaced[j] else 1 - probability))
            counts['rtd_accuracy'].append((log_odds[j] > 0) == is_replaced[j])
            counts['is_replaced'].append(is_replaced[j])
    expected = {name: np.mean(values) for name, values in counts.items()}
    is_replaced, correct = (np.array(counts[name]) for name in ('is_replaced', 'rtd_accuracy'))
    expected |= {
        'replaced_share': expected.pop('is_replaced'),
        'replaced_accuracy': correct[is_replaced].mean(),
        'original_accuracy': correct[~is_replaced].mean(),
        'weighted_rtd_loss': 50 * expected['rtd_loss'],
    }
    assert 0 < expected['replaced_accuracy'] < 1
    assert compute_loss(task, graph, params, batch) == pytest.approx(expected, rel=1e-4)


def test_padding_never_counts(tokenizer, batch):
    task = make_task(tokenizer)
    graph, params = make_model(task)
    weight = np.arange(8) % 2
    batch = batch | {'row_weight': weight.astype(np.float32)}
    expected = compute_loss(task, graph, params, batch)
    is_real = batch['valid'] & (weight == 1)[:, None]
    assert is_real.any(1).sum() == 4
    changed = batch | {'tokens': np.where(is_real, batch['tokens'], 7)}
    assert compute_loss(task, graph, params, changed) == pytest.approx(expected, rel=1e-5)
    as_document = batch | {'valid': batch['valid'].astype(np.int32)}  # its number, as in packed rows
    assert compute_loss(task, graph, params, as_document) == pytest.approx(expected, rel=1e-5)
    changed = batch | {'tokens': np.where(is_real, 7, batch['tokens'])}
    assert compute_loss(task, graph, params, changed)['rtd_loss'] != pytest.approx(
        expected['rtd_loss'], rel=1e-2
    )


def test_a_sample_that_equals_the_original_counts_as_original(batch):
    labels = batch['labels']
    is_original = np.arange(labels.shape[1]) % 2 == 0
    samples = np.where(is_original, labels, 9)
    tokens, is_replaced = (np.asarray(x) for x in rtd.replace_tokens(batch, samples))
    for i, (row, weights) in enumerate(zip(batch['positions'], batch['weights'], strict=True)):
        chosen = row[weights > 0]
        np.testing.assert_array_equal(tokens[i, chosen], samples[i, : len(chosen)])
        replaced = {p for p, label in zip(chosen[1::2], labels[i, 1::2], strict=False) if label != 9}
        assert {*np.flatnonzero(is_replaced[i])} == replaced
        others = np.setdiff1d(np.arange(LENGTH), chosen)
        np.testing.assert_array_equal(tokens[i, others], batch['tokens'][i, others])


@pytest.mark.parametrize('size', [5, 128, 300])
def test_samples_have_the_distribution_of_the_softmax(size):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=size).astype(np.float32)
    logits[[0, size // 2]] = -np.inf
    n = 40_000
    noise = (np.arange(n, dtype=np.float32) / n).reshape(2, -1)
    samples = jax.jit(sample_tokens)(jnp.broadcast_to(logits, (*noise.shape, size)), noise)
    shares = np.bincount(np.ravel(samples), minlength=size) / n
    assert not shares[[0, size // 2]].any()
    np.testing.assert_allclose(shares, np.exp(logits) / np.exp(logits).sum(), atol=2 / n)


def test_no_gradient_flows_through_the_samples(tokenizer, batch):
    tasks = [
        make_task(tokenizer, embedding_sharing='none', discriminator_weight=weight) for weight in (0.0, 50.0)
    ]
    graph, params = make_model(tasks[0])
    without, with_ = (gradients(task, graph, params, batch) for task in tasks)
    for name in params:
        if name.startswith('generator/'):
            np.testing.assert_allclose(with_[name], without[name], atol=1e-7, err_msg=name)
        else:
            assert not np.any(without[name])
            assert np.any(with_[name]), name


def test_disentangled_embeddings_get_the_gradient_of_one_loss_each(tokenizer, batch):
    shared, disentangled = (
        make_task(tokenizer, embedding_sharing=sharing) for sharing in ('shared', 'disentangled')
    )
    graph, params = make_model(shared, embedding_width=24)
    other_graph, offsets = make_model(disentangled, embedding_width=24)
    tables = ('bert/token_embedding', 'bert/position_embedding')
    others = {f'{name}/base': params[name] for name in tables} | params
    others |= {name: value for name, value in offsets.items() if name.endswith('delta')}
    others = {name: others[name] for name in offsets}
    expected = compute_loss(shared, graph, params, batch)
    assert compute_loss(disentangled, other_graph, others, batch) == pytest.approx(expected, rel=1e-6)
    both = gradients(shared, graph, params, batch)
    of_generator, of_discriminator = (
        gradients(disentangled, other_graph, others, batch, name)
        for name in ('mlm_loss', 'weighted_rtd_loss')
    )
    for name in tables:
        base, delta = f'{name}/base', f'{name}/delta'
        assert not np.any(of_discriminator[base])
        assert not np.any(of_generator[delta])
        assert np.any(of_generator[base])
        total = of_generator[base] + of_discriminator[delta]
        np.testing.assert_allclose(total, both[name], atol=1e-5 * np.abs(both[name]).max())


@pytest.mark.parametrize(
    ('model', 'task', 'generator'),
    [
        # Table 6 of the paper.
        (dict(width=256, heads=4, mlp_width=1024, embedding_width=128), {}, (12, 64, 1, 256, 128)),
        (dict(width=768, heads=12, mlp_width=3072), dict(generator_size=1 / 3), (12, 256, 4, 1024, 768)),
        # That of DeBERTaV3 is as wide, with half of the layers.
        (dict(width=768, heads=12, mlp_width=3072), dict(generator_size=1.0, generator_layers=6), (6, 768, 12, 3072, 0)),
        (dict(width=96, heads=3, mlp_width=100), dict(embedding_sharing='none'), (12, 24, 1, 25, 0)),
        (dict(width=20, heads=2, mlp_width=4, rope_base=1e4), dict(generator_size=0.1), (12, 2, 1, 1, 20)),
        (dict(width=96, heads=8, kv_heads=2, mlp_width=99), dict(generator_size=0.4), (12, 39, 3, 40, 96)),
    ],
)  # fmt: skip
def test_generator_is_a_fraction_of_the_discriminator(model, task, generator):
    config = rtd.Config(**task).generator(bert.Config(layers=12, **model))
    assert (config.layers, config.width, config.heads, config.mlp_width, config.embedding_width) == generator


@pytest.mark.parametrize('sharing', ['shared', 'disentangled', 'none'])
def test_shared_embeddings_are_stored_once(tokenizer, sharing):
    _, params = make_model(make_task(tokenizer, embedding_sharing=sharing), embedding_width=24)
    tables = {name for name in params if 'token_embedding' in name}
    assert (
        tables
        == {
            'shared': {'bert/token_embedding'},
            'disentangled': {'bert/token_embedding/base', 'bert/token_embedding/delta'},
            'none': {'bert/token_embedding', 'generator/bert/token_embedding'},
        }[sharing]
    )


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'generator_size': 0.0}, r'task\.generator_size=0\.0 must be from 0\.001 to 1'),
        ({'generator_layers': -1}, r'task\.generator_layers=-1 must be at least 0'),
        ({'discriminator_weight': -1.0}, r'task\.discriminator_weight=-1\.0 must be at least 0'),
        ({'diffusion': True}, r'does not support task\.diffusion=true'),
        ({'sentence_objective': 'swap'}, r'task\.sentence_objective'),
        ({'embedding_sharing': 'tied'}, r'task\.embedding_sharing'),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build_section(rtd.Config, settings, 'task')


def test_flops_are_those_of_the_matrix_products(tokenizer):
    task = make_task(tokenizer, embedding_sharing='none')
    rows = [rows_lib.pack(np.arange(5, 19), None, 0, LENGTH, tokenizer)] * 2  # without padding
    batch = Batches(rows, task.example, 2, seed=0)(0)
    batch = {name: value[:, :4] if name in _PREDICTED else value for name, value in batch.items()}
    assert batch['weights'].all()
    graph, params = make_model(task, pad_vocab_multiple=1)
    config = bert.Config(vocab_size=len(tokenizer), **SHAPE)
    program = jax.make_jaxpr(lambda p, b: task.loss(module.merge(graph, p), b, None).losses)(params, batch)
    width = task.config.generator(config).width
    head = 2 * batch['weights'].size * width * (width + len(tokenizer))  # computed again to sample
    assert matmul_flops(program.jaxpr) - head == task.flops(config, batch)


_PREDICTED = ('positions', 'labels', 'weights', 'sampling_noise')


def test_sharding_and_accumulation_change_nothing(tokenizer, batch):
    task = make_task(tokenizer, embedding_sharing='disentangled', generator_size=0.5)
    settings = dict(heads=4, embedding_width=24, layers=1)
    mesh = MeshConfig('fsdp_tp', fsdp=2, tensor=2)
    single = update(task, tokenizer, batch, devices=1, **settings)
    assert_same(
        update(task, tokenizer, batch, mesh=mesh, devices=4, accumulation_steps=2, **settings), single
    )


def test_evaluation_is_deterministic_and_does_not_depend_on_the_batch(tokenizer, packed):
    task = make_task(tokenizer)
    graph, params = make_model(task)
    partitioner = partitioning.make(MeshConfig(), jax.devices()[:1])
    first, again, other = (
        Evaluator(
            task, graph, Examples(packed), partitioner, TrainConfig(eval_batch_size=size, length_buckets=1)
        )(params)
        for size in (8, 8, 3)
    )
    assert first == again
    assert other == pytest.approx(first, rel=1e-5)
    assert first['loss'] == pytest.approx(first['mlm_loss'] + 50 * first['rtd_loss'], rel=1e-5)


SETTINGS = (
    'task.name=rtd',
    'task.sentence_objective=none',
    'task.embedding_sharing=disentangled',
    'model.width=64',
    'model.scan_layers=true',
    'model.embedding_width=24',
    'model.dropout=0.0',
    'model.attention_dropout=0.0',
    'optim.learning_rate=0.005',
    'train.steps=40',
    'train.eval_every=40',
    'checkpoint.every=20',
)


@pytest.fixture(scope='module')
def electra(tmp_path_factory, corpus):
    """Working directory of a run whose embeddings are disentangled, with checkpoints 20 and 40."""
    workdir = tmp_path_factory.mktemp('electra')
    assert runs.pretrain(workdir, corpus, workdir / 'rows', *SETTINGS) == 0
    return workdir


def test_a_run_learns_and_resumes_to_the_bit(electra, corpus, tmp_path):
    lines = runs.metric_lines(electra)
    training = [line for line in lines if 'loss' in line]
    assert training[-1]['loss'] < 0.6 * training[0]['loss']
    assert lines[-1]['eval/replaced_accuracy'] > 0.1
    assert lines[-1]['eval/original_accuracy'] > 0.9
    assert lines[-1]['eval/mlm_accuracy'] > 0.05
    shutil.copytree(electra, tmp_path / 'resumed')
    shutil.rmtree(tmp_path / 'resumed' / 'checkpoints' / '40')
    assert runs.pretrain(tmp_path / 'resumed', corpus, electra / 'rows', *SETTINGS) == 0
    assert runs.metric_lines(tmp_path / 'resumed') == lines


def read_params(task, checkpoint, workdir):
    """Return the parameters that a run of a task starts with from a checkpoint."""
    sections = {'init': {'checkpoint': str(checkpoint)}, 'task': task, 'model': {'name': 'bert'}}
    sections['data'] = {'source': 'none'} if task['name'] == 'classify' else {'sources': ('none',)}
    experiment = experiment_lib.from_config(sections)
    experiment, tokenizer, read = inputs.resolve(experiment, workdir)
    make = functools.partial(experiment.make_task(tokenizer).build_model, experiment.model)
    partitioner = partitioning.make(experiment.mesh)
    return read(state_lib.make_layout(make, optim.OptimConfig(), 10, partitioner))


def test_fine_tuning_starts_from_the_discriminator(electra, tmp_path):
    trained = load.read(electra)
    table = [trained.params[f'bert/token_embedding/{part}'] for part in ('base', 'delta')]
    assert all(np.any(part) for part in table)
    params = read_params({'name': 'classify', 'labels': ('a', 'b')}, electra, tmp_path)
    np.testing.assert_array_equal(params['bert/token_embedding'], table[0] + table[1])
    layers = [name for name in trained.params if name.startswith('bert/layers/')]
    assert {*layers} < params.keys()
    assert not any(name.startswith(('generator', 'detector', 'classifier')) for name in params)
    shared = read_params({'name': 'rtd', 'embedding_sharing': 'shared'}, electra, tmp_path)
    np.testing.assert_array_equal(shared['bert/token_embedding'], table[0] + table[1])


def test_a_masked_language_model_can_become_the_discriminator(pretrained, tmp_path):
    task = {'name': 'rtd', 'embedding_sharing': 'disentangled'}
    params = read_params(task, pretrained, tmp_path)
    expected = load.read(pretrained).params['bert/token_embedding']
    np.testing.assert_array_equal(params['bert/token_embedding/base'], expected)
    assert 'bert/token_embedding/delta' not in params  # it begins at zero


def test_both_parts_are_exported_and_read_back_equal(electra, tmp_path):
    model, tokenizer = bert_jax.load(electra)
    batch = tokenizer(['the old sailor', 'a small bird in the morning'])
    for part, name, task in (
        ('', 'ElectraForPreTraining', 'encode'),
        ('generator', 'ElectraForMaskedLM', 'mlm'),
    ):
        convert.to_hf(electra, tmp_path / f'{name}_hf', part=part)
        assert json.loads((tmp_path / f'{name}_hf' / 'config.json').read_text())['architectures'] == [name]
        assert convert.from_hf(str(tmp_path / f'{name}_hf'), tmp_path / name) == task
    ours = model(**batch)
    assert ours.logits.shape == batch['tokens'].shape
    encoder = bert_jax.load(tmp_path / 'ElectraForPreTraining')[0]
    np.testing.assert_allclose(encoder(**batch).hidden_states[-1], ours.hidden_states[-1], atol=1e-6)
    generate = jax.jit(lambda model, batch: model.module.generator(**batch).logits)
    generator = bert_jax.load(tmp_path / 'ElectraForMaskedLM')[0]
    np.testing.assert_allclose(generator(**batch).logits, generate(model, batch), atol=1e-5)
    tensors = load_file(tmp_path / 'ElectraForPreTraining_hf' / 'model.safetensors')
    head = {name: value for name, value in tensors.items() if not name.startswith('electra.')}
    kernels = {name: model.params[f'detector/{name}/kernel'] for name in ('dense', 'classifier')}
    np.testing.assert_array_equal(head['discriminator_predictions.dense.weight'], kernels['dense'].T)
    np.testing.assert_array_equal(
        head['discriminator_predictions.dense_prediction.weight'], kernels['classifier'].T
    )
    assert len(head) == 4


def test_blocks_that_electra_lacks_are_reported(tokenizer, caplog):
    sections = {'task': {'name': 'rtd'}, 'data': {'sources': ('none',)}}
    for settings, message in (
        ({}, ''),
        ({'rope_base': 100.0}, "model.rope_base=100.0 cannot be exported .*'electra'"),
    ):
        caplog.clear()
        experiment = experiment_lib.from_config(
            sections | {'model': {'name': 'bert', 'size': 'tiny', **settings}}
        )
        with caplog.at_level('INFO'):
            convert.log_export_limits(experiment_lib.complete(experiment, tokenizer), tokenizer)
        assert bool(caplog.text) == bool(message)
        assert re.search(message, caplog.text)


def test_a_part_of_another_model_is_refused(pretrained, tmp_path):
    with pytest.raises(UserError, match='has no generator, because its task.name is mlm'):
        convert.to_hf(pretrained, tmp_path / 'out', part='generator')


def test_the_generator_fills_masks(electra):
    ((best,),) = (MaskFiller(str(electra))('the old [MASK]', top=1),)
    assert 0 < best[0][1] < 1


def test_studies_of_masked_language_models_refuse_a_discriminator(electra):
    with pytest.raises(UserError, match='trained on the task rtd'):
        hidden_states.check_masked_lm(load.read(electra), 'It')


def test_planner_counts_both_models():
    base = ["data.sources=('none.txt',)", 'model.width=64', 'task.name=rtd', 'task.sentence_objective=none']
    plans = {}
    for size in (0.25, 1.0):
        experiment = experiment_lib.read(f'{runs.TINY}:pretrain', [*base, f'task.generator_size={size}'])
        experiment, tokenizer = abstract_step.complete_experiment(experiment)
        plans[size] = plan.plan_step(experiment, tokenizer, Phase(0, 20, 32, 16), plan.Topology('h100:2'))
    small, large = (plans[size].memory['activations'] for size in (0.25, 1.0))
    assert large / small == pytest.approx(2 / 1.25)
    assert plans[0.25].memory['parameters'] < plans[1.0].memory['parameters']
