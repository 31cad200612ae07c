"""The examples of docs/extending, which the pages show as they are, work."""

import json
import pathlib
import runpy
import types

import numpy as np
import pytest

import bert_jax
from bert_jax import bin as bin_package
from bert_jax import modeling, studies, tasks
from bert_jax.core import partitioning
from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.prepare import TextConfig
from bert_jax.experiments import jobs, sweeps, tables
from bert_jax.interop import families, huggingface
from bert_jax.modeling import heads, module
from bert_jax.train import experiment
from tests import runs
from tests.modeling import tiny

EXAMPLES = pathlib.Path(__file__).parent / 'examples'


@pytest.fixture
def install(monkeypatch):
    """Function that makes the files in `examples` modules of a package, as if they were in its folder."""

    def add_folder(package):
        monkeypatch.setattr(package, '__path__', [*package.__path__, str(EXAMPLES)])

    return add_folder


@pytest.fixture
def example_tasks(install):
    """Make files in `examples` tasks, as if they were in `bert_jax/tasks`."""
    install(tasks)
    return tasks


def read_losses(workdir, name):
    """Read the training losses of a run."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def random_params(shapes):
    """Random float32 parameters of these shapes, by path."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_accuracy(job, accuracy):
    """Write the config, the scores and the mark of a finished fine-tuning."""
    job.folder.mkdir(parents=True)
    sections = {name: {} for name in ('data', 'model', 'train', 'init', 'checkpoint')}
    (job.folder / 'config.json').write_text(json.dumps(sections))
    line = {'step': 1, 'eval/loss': 1.0, 'eval/accuracy': accuracy}
    (job.folder / 'metrics.jsonl').write_text(json.dumps(line) + '\n')
    job.mark_started()
    job.mark_finished()


# Add a task.


def test_the_new_task_replaces_ordinary_tokens_only(example_tasks, word_tokenizer):
    module = example_tasks.get('random_token')
    task = module.Task(module.Config(replace_rate=1.0), TextConfig(), word_tokenizer)
    packed = rows_lib.pack(np.arange(100, 110), None, 0, 16, word_tokenizer)
    example = task.example(packed, np.random.default_rng(0))
    original = packed[rows_lib.HEADER :]
    assert example['labels'].tolist() == (example['tokens'] != original).astype(int).tolist()
    assert example['labels'][1:11].sum() > 8
    assert example['labels'][[0, 11, 12, 15]].sum() == 0


def test_the_new_task_trains(example_tasks, tmp_path, corpus):
    settings = ('task.name=random_token', 'train.steps=60', 'optim.learning_rate=0.01')
    short = ('train.eval_every=0',)
    assert runs.pretrain(tmp_path / 'run', corpus, tmp_path / 'rows', *settings, *short) == 0
    losses = read_losses(tmp_path / 'run', 'detection_loss')
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_settings_of_the_new_task_are_checked(example_tasks):
    with pytest.raises(UserError, match=r'task.replace_rate=2'):
        example_tasks.get('random_token').Config(replace_rate=2)


# Add a model.


def read_model_config(*overrides):
    return experiment.read(
        f'{runs.TINY}:classify', ['model.name=cyclic', 'model.vocab_size=200', *overrides]
    ).model


@pytest.mark.parametrize('scan_layers', [False, True])
def test_layers_of_the_new_model_share_their_blocks(install, scan_layers):
    install(modeling)
    config = read_model_config('model.layers=4', 'model.cycle=2', f'model.scan_layers={scan_layers}')
    graph, shapes, _ = module.abstract(lambda rngs: heads.Encoder(config, rngs))
    params = random_params({name: shape.shape for name, shape in shapes.items()})
    assert {name.split('/')[3] for name in params if '/blocks/' in name} == {'0', '1'}
    tokens = np.arange(10, 20, dtype=np.int32)[None]
    before = tiny.runner(graph, params)(tokens).hidden_states
    bias = 'cyclic/layers/blocks/1/mlp_norm/bias'
    params[bias] = params[bias] + 1  # not in place: the runner may still read the array
    after = tiny.runner(graph, params)(tokens).hidden_states
    assert [np.allclose(x, y) for x, y in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize('strategy', partitioning.STRATEGIES)
def test_parameters_of_the_new_model_are_sharded(install, strategy):
    install(modeling)
    config = read_model_config()
    partitioner = partitioning.make(partitioning.MeshConfig(strategy, tensor=2 if 'tp' in strategy else 0))
    _, shapes, axes = module.abstract(lambda rngs: heads.Encoder(config, rngs, pooler=True))
    shardings = [partitioner.sharding(axes[name], shape.shape, name) for name, shape in shapes.items()]
    assert any(any(sharding.spec) for sharding in shardings) == (strategy != 'dp')


def test_the_new_model_is_pretrained_and_fine_tuned(install, example_tasks, tmp_path, corpus, labeled):
    install(modeling)
    short = ('train.eval_every=0',)
    settings = ('model.name=cyclic', 'task.name=random_token', 'train.steps=30', 'optim.learning_rate=0.01')
    assert runs.pretrain(tmp_path / 'pretrained', corpus, tmp_path / 'rows', *settings, *short) == 0
    losses = read_losses(tmp_path / 'pretrained', 'detection_loss')
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    settings = ('train.steps=3', 'train.length_buckets=1')
    assert runs.finetune(tmp_path / 'tuned', tmp_path / 'pretrained', labeled, *settings, *short) == 0
    model, tokenizer = bert_jax.load(tmp_path / 'tuned')
    assert type(model.module.cyclic).__name__ == 'Cyclic'
    tokens = np.array([[tokenizer.cls, 50, tokenizer.sep]], np.int32)
    assert model(tokens).logits.shape == (1, 2)


def test_settings_of_the_new_model_are_checked(install):
    install(modeling)
    with pytest.raises(UserError, match=r'model.cycle=3 must be from 1 to 2'):
        read_model_config('model.cycle=3')


# Add a loader.

PRELAYERNORM = {
    'model_type': 'roberta-prelayernorm',
    'architectures': ['RobertaPreLayerNormForTokenClassification'],
    'vocab_size': 50,
    'pad_token_id': 0,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 32,
    'max_position_embeddings': 12,
    'type_vocab_size': 2,
    'id2label': {'0': 'O', '1': 'B', '2': 'I'},
}


@pytest.fixture
def prelayernorm(monkeypatch):
    """Run the example, which adds an entry to FAMILIES, and remove the entry after the test."""
    monkeypatch.setitem(families.FAMILIES, 'roberta-prelayernorm', None)
    runpy.run_path(str(EXAMPLES / 'prelayernorm.py'))


def param_shapes(config):
    """Shapes of our parameters for a model whose head classifies tokens."""
    model = huggingface.to_model_config(config)
    classes = len(huggingface.class_names(config))
    _, shapes, _ = module.abstract(lambda rngs: heads.ForTokenClassification(model, classes, rngs))
    return {name: shape.shape for name, shape in shapes.items()}


def test_the_new_family_survives_a_round_trip(prelayernorm):
    params = random_params(param_shapes(PRELAYERNORM))
    params['bert/token_embedding'][50:] = 0  # padding of the vocabulary, which is not exported
    tensors = huggingface.to_tensors(params, PRELAYERNORM)
    assert tensors['roberta_prelayernorm.embeddings.word_embeddings.weight'].shape == (50, 16)
    assert tensors['roberta_prelayernorm.encoder.layer.1.attention.self.key.weight'].shape == (16, 16)
    assert tensors['roberta_prelayernorm.LayerNorm.weight'].shape == (16,)
    assert tensors['classifier.weight'].shape == (3, 16)
    again = huggingface.from_tensors(tensors, PRELAYERNORM, param_shapes(PRELAYERNORM))
    assert again.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(again[name], value)


def test_the_new_family_rejects_what_our_model_lacks(prelayernorm):
    with pytest.raises(UserError, match='is_decoder to True'):
        huggingface.to_model_config({**PRELAYERNORM, 'is_decoder': True})
    with pytest.raises(UserError, match="architecture 'RobertaPreLayerNormForMaskedLM' cannot be converted"):
        huggingface.family_and_task({**PRELAYERNORM, 'architectures': ['RobertaPreLayerNormForMaskedLM']})


def test_a_folder_of_the_new_family_is_converted(prelayernorm, tmp_path):
    from safetensors.numpy import save_file

    params = random_params(param_shapes(PRELAYERNORM))
    folder = tmp_path / 'theirs'
    folder.mkdir()
    save_file(huggingface.to_tensors(params, PRELAYERNORM), folder / 'model.safetensors')
    (folder / 'config.json').write_text(json.dumps(PRELAYERNORM))
    (folder / 'vocab.txt').write_text('\n'.join([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(45))]))
    done = runs.run_in_process('bert_jax.bin.convert', f'--from_hf={folder}', f'--to={tmp_path / "ours"}')
    assert done.returncode == 0, done.stderr
    model, _ = bert_jax.load(tmp_path / 'ours')
    np.testing.assert_array_equal(model.params['classifier/kernel'], params['classifier/kernel'])


# Add a study.


def test_the_new_study_counts_the_dimensions_of_known_vectors(install):
    install(studies)
    from bert_jax.studies import dimensionality

    rng = np.random.default_rng(0)
    hidden = np.zeros((2, 50, 80, 16), np.float32)
    # 4 directions with equal variance, far from the origin; in the second layer, one has nearly all of it.
    hidden[..., :4] = 5 + rng.normal(size=(2, 50, 80, 4))
    hidden[1, ..., 0] *= 1000
    encoder = types.SimpleNamespace(
        languages=('text',),
        batches=lambda _: [(None, {'ordinary': np.ones((50, 80), bool)})] * 2,
        hidden_states=lambda _: hidden,
    )
    results = dimensionality.study(encoder)
    assert results['tokens'] == 8000
    np.testing.assert_allclose(results['dimensions'], [4, 1], rtol=0.01)


def test_a_table_shows_the_score_of_the_new_study(install, pretrained, tmp_path):
    install(bin_package)
    install(studies)
    row = tables.Row('BERT', checkpoint=str(pretrained))
    column = tables.Column('dimensions', 'bin/study_dimensionality.py', 'last_layer', settings=('limit=50',))
    table = tables.Table('Dimensions', (row,), (column,))
    (job,) = table.jobs(tmp_path)
    done = runs.run_in_process(*job.arguments)
    assert done.returncode == 0, done.stderr
    job.mark_started()
    job.mark_finished()
    assert {p.suffix for p in job.folder.glob('dimensionality.*')} == {'.md', '.csv', '.tex', '.png', '.json'}
    score = json.loads((job.folder / 'dimensionality.json').read_text())['scores']['last_layer']
    assert 1 < score < 32
    assert table.values(tmp_path) == {('BERT', 'dimensions'): [score]}
    assert done.stdout.splitlines()[-1] == f'| 2 | {score:.1f} |'


# Add a table.

TABLE = str(EXAMPLES / 'whole_words.py')


def test_the_new_table_has_these_jobs(monkeypatch):
    monkeypatch.chdir(runs.ROOT)  # the configs of rows and columns are relative to it
    found = tables.read(TABLE).jobs(pathlib.Path('runs/whole_words'))
    assert [str(job.folder) for job in found] == (EXAMPLES / 'table_folders.txt').read_text().splitlines()
    assert jobs.validate(found)  # each config accepts its settings
    pretraining, fine_tuning = found[2:4]
    assert pretraining.settings[-2:] == ('task.whole_word_masking=true', 'train.seed=0')
    assert fine_tuning.depends_on == pretraining.folder
    assert f'init.checkpoint={pretraining.folder}' in fine_tuning.settings


def test_the_new_table_is_printed_from_scores(monkeypatch, tmp_path):
    monkeypatch.chdir(runs.ROOT)
    fine_tunings = [job for job in tables.read(TABLE).jobs(tmp_path) if job.depends_on]
    for job, accuracy in zip(fine_tunings, (0.50, 0.53, 0.51, 0.55, 0.52), strict=False):
        write_accuracy(job, accuracy)
    done = runs.run_in_process('bert_jax.bin.table', f'--config={TABLE}', f'--workdir={tmp_path}', '--list')
    assert done.stdout.startswith('7 of 12 runs are missing')
    lines = done.stdout.splitlines()
    assert '|  | NLI: published (MultiNLI) | ours | difference |' in lines
    assert '| word pieces | 86.05 | 51.0 ± 1.0 (3) | -35.0 |' in lines
    assert '| whole words | 87.07 | 54.0 ± 1.4 (2) | -33.1 |' in lines
    assert lines[-1].startswith('NLI: whole words 54.0 ± 1.4 (2), word pieces 51.0 ± 1.0 (3), p = ')


# Add a sweep.

SWEEP = str(EXAMPLES / 'nli_batch_size.py')


def test_the_new_sweep_has_these_runs():
    settings = sweeps.from_config(SWEEP)
    found = sweeps.trials(SWEEP, pathlib.Path('runs/nli_batch_size'), settings, seeds=2, overrides=())
    folders = [str(job.folder) for trial in found for job in trial.jobs]
    assert folders == (EXAMPLES / 'sweep_folders.txt').read_text().splitlines()
    assert sweeps.objective(found)[:2] == ('accuracy', False)


def test_commands_of_the_new_sweep(tmp_path):
    arguments = (
        f'--config={SWEEP}',
        f'--workdir={tmp_path}',
        '--print',
        '--config.init.checkpoint=runs/english',
    )
    done = runs.run_in_process('bert_jax.bin.sweep', *arguments)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert '--config.train.batch_size=64 --config.optim.learning_rate=0.000424 --config.train.seed=0' in last
    done = runs.run_in_process('bert_jax.bin.sweep', *arguments, '--over=train.batch_size=8,128')
    assert len(done.stdout.splitlines()) == 2, '--over replaces the settings of the config'
