"""Folders of sentence-transformers, both ways."""

import json
import shutil
import types

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.data.pipeline import stack
from bert_jax.data.records import Record
from bert_jax.data.text_tuples import TupleConfig
from bert_jax.evals import mteb_model
from bert_jax.interop import sentence_transformers
from bert_jax.modeling import module
from bert_jax.tasks import embed
from bert_jax.train import convert, load
from tests.train.test_convert import write_hf_folder

TEXTS = ['w1 w2 w3', 'w4', 'w1 w5 w6 w7 w8']


def write_folder(
    path, pooling, name='BertModel', modules=('Transformer', 'Pooling', 'Normalize'), **settings
):
    """Write a random encoder with the files of sentence-transformers."""
    write_hf_folder(path, name)
    files = sentence_transformers.make_files(pooling, 32, 9)
    files['modules.json'] = [
        {'path': p, 'type': f'sentence_transformers.models.{kind}'}
        for p, kind in zip(
            (
                '',
                '1_Pooling',
                '2_Dense' if modules[-1] == 'Dense' and len(modules) == 3 else '2_Normalize',
                '3_Dense',
            ),
            modules,
            strict=False,
        )
    ]
    files['1_Pooling/config.json'] |= settings
    for file, content in files.items():
        (path / file).parent.mkdir(exist_ok=True)
        (path / file).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize('pooling', ['mean', 'cls', 'max', 'last', 'weighted'])
def test_vectors_survive_a_round_trip(tmp_path, pooling):
    source = write_folder(tmp_path / 'theirs', pooling)
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'embed'
    experiment = load.read(tmp_path / 'ours').experiment
    assert (experiment.task.pooling, experiment.data.length) == (pooling, 9)
    before = bert_jax.load_embedder(tmp_path / 'ours').encode(TEXTS)
    convert.to_hf(tmp_path / 'ours', tmp_path / 'exported')
    assert {*load_file(tmp_path / 'exported/model.safetensors')} <= {*load_file(source / 'model.safetensors')}
    assert 'SentenceTransformer(' in (tmp_path / 'exported/README.md').read_text()
    assert convert.from_hf(str(tmp_path / 'exported'), tmp_path / 'again') == 'embed'
    np.testing.assert_array_equal(bert_jax.load_embedder(tmp_path / 'again').encode(TEXTS), before)
    parts = sentence_transformers.read_parts(tmp_path / 'exported')
    assert parts == sentence_transformers.Parts(tmp_path / 'exported', pooling, 9, None)


@pytest.mark.parametrize(('activation', 'has_bias'), [('Tanh', True), ('Identity', False)])
def test_dense_layers_survive_a_round_trip(tmp_path, activation, has_bias):
    source = write_folder(tmp_path / 'theirs', 'mean', modules=('Transformer', 'Pooling', 'Dense'))
    rng = np.random.default_rng(0)
    tensors = {'linear.weight': rng.normal(0, 0.3, (6, 32)).astype(np.float32)}
    tensors |= {'linear.bias': rng.normal(size=6).astype(np.float32)} if has_bias else {}
    module = 'activation' if activation == 'Tanh' else 'linear'
    dense = {'activation_function': f'torch.nn.modules.{module}.{activation}'}
    (source / '2_Dense').mkdir()
    (source / '2_Dense' / 'config.json').write_text(json.dumps(dense))
    save_file(tensors, source / '2_Dense' / 'model.safetensors')
    assert convert.from_hf(str(source), tmp_path / 'ours') == 'embed'
    found = bert_jax.load_embedder(tmp_path / 'ours').encode(TEXTS, normalize=False)
    shutil.rmtree(source / '2_Dense')
    (source / 'modules.json').write_text(
        json.dumps(sentence_transformers.make_files('mean', 32, 9)['modules.json'])
    )
    convert.from_hf(str(source), tmp_path / 'plain')
    plain = bert_jax.load_embedder(tmp_path / 'plain').encode(TEXTS, normalize=False)
    expected = plain @ tensors['linear.weight'].T + tensors.get('linear.bias', 0)
    np.testing.assert_allclose(found, np.tanh(expected) if activation == 'Tanh' else expected, atol=1e-5)
    convert.to_hf(tmp_path / 'ours', tmp_path / 'exported')
    convert.from_hf(str(tmp_path / 'exported'), tmp_path / 'again')
    again = bert_jax.load_embedder(tmp_path / 'again').encode(TEXTS, normalize=False)
    np.testing.assert_array_equal(again, found)


def write_settings(source, **settings):
    (source / 'config_sentence_transformers.json').write_text(json.dumps(settings))


def test_prompts_survive_a_round_trip(tmp_path, caplog):
    source = write_folder(tmp_path / 'theirs', 'mean')
    write_settings(source, prompts={'passage': 'w3 ', 'query': 'w1 w2 ', 'sorting': 'w4 '})
    convert.from_hf(str(source), tmp_path / 'ours')
    assert "other prompts than those of queries and passages (sorting: 'w4 ')" in caplog.text
    embedder = bert_jax.load_embedder(tmp_path / 'ours')
    assert (embedder.query_prompt, embedder.passage_prompt) == ('w1 w2 ', 'w3 ')
    model = mteb_model.Encoder(tmp_path / 'ours')
    found = model.encode([{'text': ['w5']}], prompt_type=types.SimpleNamespace(value='query'))
    np.testing.assert_allclose(found, embedder.encode(['w1 w2 w5']), atol=1e-6)
    convert.to_hf(tmp_path / 'ours', tmp_path / 'exported')
    exported = json.loads((tmp_path / 'exported/config_sentence_transformers.json').read_text())
    assert exported['prompts'] == {'query': 'w1 w2 ', 'document': 'w3 '}
    card = (tmp_path / 'exported/README.md').read_text()
    assert 'model.encode_query(' in card
    assert 'model.encode_document(' in card


@pytest.mark.parametrize(
    ('settings', 'prompts'),
    [
        ({}, ('', '')),
        ({'prompts': None, 'default_prompt_name': None}, ('', '')),
        ({'prompts': {'query': '', 'document': ''}}, ('', '')),
        ({'prompts': {'query': 'w1 '}}, ('w1 ', '')),
        ({'prompts': {'query': 'w1 ', 'all': 'w2 '}, 'default_prompt_name': 'all'}, ('w1 ', 'w2 ')),
    ],
)
def test_prompts_of_queries_and_passages(tmp_path, settings, prompts):
    source = write_folder(tmp_path / 'theirs', 'mean')
    write_settings(source, **settings)
    convert.from_hf(str(source), tmp_path / 'ours')
    embedder = bert_jax.load_embedder(tmp_path / 'ours')
    assert (embedder.query_prompt, embedder.passage_prompt) == prompts


def test_settings_that_would_change_the_vectors_are_named(tmp_path, caplog):
    source = write_folder(tmp_path / 'theirs', 'mean', modules=('Transformer', 'Pooling'))
    write_settings(
        source,
        similarity_fn_name='dot',
        truncate_dim=8,
        prompts={'query': 'w1 '},
        default_prompt_name='query',
    )
    convert.from_hf(str(source), tmp_path / 'dot')
    assert 'cuts its vectors to their first 8 values' in caplog.text
    assert "has the default prompt 'w1 '" in caplog.text
    assert "the model compares texts by 'dot', but bert_jax by the cosine" in caplog.text
    (source / 'sentence_bert_config.json').write_text('{"do_lower_case": true}')
    convert.from_hf(str(source), tmp_path / 'uncased')  # by its tokenizer as well
    (source / 'tokenizer_config.json').write_text(
        '{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}'
    )
    with pytest.raises(UserError, match='lowercases texts before it tokenizes them'):
        convert.from_hf(str(source), tmp_path / 'lowercase')
    source = write_folder(tmp_path / 'other', 'mean', include_prompt=False)
    convert.from_hf(str(source), tmp_path / 'without')
    write_settings(source, prompts={'query': 'w1 '})
    with pytest.raises(UserError, match='leaves the tokens of prompts out'):
        convert.from_hf(str(source), tmp_path / 'with')


def test_newer_and_nested_settings_are_read(tmp_path):
    source = write_folder(tmp_path / 'theirs', 'mean')
    (source / '1_Pooling/config.json').write_text('{"embedding_dimension": 32, "pooling_mode": "lasttoken"}')
    assert sentence_transformers.read_parts(source) == sentence_transformers.Parts(source, 'last', 9, None)
    assert sentence_transformers.read_parts(tmp_path) is None


def test_other_parts_are_errors(tmp_path):
    for i, (modules, settings, message) in enumerate(
        (
            (
                ('Transformer', 'Pooling', 'Normalize', 'Dense'),
                {},
                'consists of Transformer, Pooling, Normalize, Dense',
            ),
            (('Transformer',), {}, 'consists of Transformer, but only'),
            (('Transformer', 'Pooling'), {'pooling_mode_cls_token': True}, 'has the pooling mean, cls'),
            (('Transformer', 'Pooling'), {'pooling_mode_mean_tokens': False}, 'has the pooling none'),
        )
    ):
        source = write_folder(tmp_path / str(i), 'mean', modules=modules, **settings)
        with pytest.raises(UserError, match=message):
            convert.from_hf(str(source), tmp_path / 'ours')
    (source / 'modules.json').write_text('[')
    with pytest.raises(UserError, match=r'modules.json. cannot be read'):
        convert.from_hf(str(source), tmp_path / 'ours')


@pytest.mark.parametrize('text', ['1.5', '[1]', '{}', '[{"path": 3}]', '[' * 5000])
@pytest.mark.parametrize(
    'name', ['modules.json', '1_Pooling/config.json', 'config_sentence_transformers.json']
)
def test_values_of_other_types_are_errors(tmp_path, name, text):
    if (name, text) == ('config_sentence_transformers.json', '{}'):
        text = '{"prompts": {"query": 3}}'
    source = write_folder(tmp_path / 'theirs', 'mean')
    (source / name).write_text(text)
    with pytest.raises(UserError):
        convert.from_hf(str(source), tmp_path / 'ours')


COLUMNS = {
    'a': ['w1 w2 w3', 'w4', 'w5 w6 w7 w8', 'w3 w3 w9'],
    'b': ['w2 w1', 'w4 w4', 'w8 w5', 'w9 w3'],
    'c': ['w7', 'w6 w1', 'w2', 'w5 w5 w5'],
}
# Loss and norm of the gradient of the token embedding, of sentence-transformers 6.2 with these weights and texts, without
# dropout and with a scale of 20; the classifier has the weights sin(0), sin(1), ... and the biases 0.1, 0.2, 0.3.
GOLDEN = {
    'MultipleNegativesRankingLoss': (3.308170795440674, 10.799915313720703),
    'with hard negatives': (4.481957912445068, 11.639066696166992),
    'MultipleNegativesSymmetricRankingLoss': (2.2385408878326416, 5.848891735076904),
    'CosineSimilarityLoss': (0.1039605662226677, 0.3113170564174652),
    'SoftmaxLoss': (2.2485735416412354, 7.724386692047119),
    'MatryoshkaLoss': (7.593111991882324, 25.30535125732422),
}
OURS = {
    'MultipleNegativesRankingLoss': ('ab', {}, [0] * 4),
    'with hard negatives': ('abc', {}, [0] * 4),
    'MultipleNegativesSymmetricRankingLoss': ('ab', {'symmetric': True}, [0] * 4),
    'CosineSimilarityLoss': ('ab', {'objective': 'cosine'}, [0.2, 0.9, 0.5, 1.0]),
    'SoftmaxLoss': ('ab', {'objective': 'classes', 'labels': ('x', 'y', 'z')}, [0, 1, 2, 1]),
    'MatryoshkaLoss': ('ab', {'widths': (16, 8)}, [0] * 4),
}


@pytest.fixture(scope='module')
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('goldens')
    convert.from_hf(str(write_folder(folder / 'theirs', 'mean')), folder / 'ours')
    return load.read(folder / 'ours')


@pytest.mark.parametrize('name', GOLDEN)
def test_losses_and_gradients_are_those_of_sentence_transformers(converted, name):
    texts, settings, labels = OURS[name]
    data = TupleConfig('x.jsonl', texts=tuple(texts), length=16, label_names=settings.get('labels', ()))
    task = embed.Task(embed.Config(**settings), data, converted.tokenizer)
    records = [
        Record(f'record {i}', {k: COLUMNS[k][i] for k in texts} | {'label': label})
        for i, label in enumerate(labels)
    ]
    batch = stack([task.example(row, np.random.default_rng(0)) for row in task.make_examples(records).rows])
    model = converted.experiment.model
    graph, _, _ = module.abstract(lambda rngs: task.build_model(model, rngs))
    classifier = {
        'classifier/kernel': np.sin(np.arange(288, dtype=np.float32)).reshape(3, 96).T,
        'classifier/bias': np.array([0.1, 0.2, 0.3], np.float32),
    }
    params = dict(converted.params) | (classifier if 'labels' in settings else {})

    def loss(params):
        output = task.loss(module.merge(graph, params), batch, None)
        return sum(mean.value() for mean in output.losses.values())

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    expected, norm = GOLDEN[name]
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert float(np.linalg.norm(gradient['bert/token_embedding'])) == pytest.approx(norm, rel=1e-4)
