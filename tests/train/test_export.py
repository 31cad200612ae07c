"""Exported programs compute what the models compute, in processes without bert_jax."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
from safetensors.numpy import load_file

import bert_jax
from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.modeling import bart, bert, gpt, module
from bert_jax.train import checkpoint, export
from bert_jax.train import experiment as experiment_lib
from tests.modeling import tiny
from tests.runs import run_in_process

VOCAB = [*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(40))]
MODELS = {'bert': bert, 'gpt': gpt, 'bart': bart}
# Task and settings of the model.
CASES = {
    'bert': ('classify', {}),
    'classes of tokens': ('tag', {}),
    'answers': ('qa', {}),
    'masked language model': ('mlm', {}),
    'local attention': ('mlm', {**tiny.LOCAL, 'window': 2}),
    'relative positions': ('encode', tiny.T5),
    'late pooling': ('classify', tiny.EUROBERT),
    'disentangled attention': ('classify', tiny.DEBERTA),
    'gpt': ('clm', dict(name='gpt')),
    'classifying gpt': ('classify', dict(name='gpt')),
    'bart': ('denoise', dict(name='bart')),
    'classifying bart': ('classify', dict(name='bart')),
}


def write_checkpoint(workdir, case):
    """Write a checkpoint of random parameters, without training."""
    task, model = CASES[case]
    tokenizer = tokenizer_lib.from_vocab(VOCAB)
    sizes = dict(width=32, mlp_width=48, heads=2, layers=2, max_positions=24, vocab_size=len(VOCAB))
    labels = {'labels': ('a', 'b', 'c')} if task in ('classify', 'tag') else {}
    sections = {'task': {'name': task, **labels}, 'model': {'name': 'bert', 'size': 'tiny', **sizes, **model}}
    if task == 'qa':
        sections['data'] = dict(length=24, stride=2, max_question_length=8)
    experiment = experiment_lib.complete(experiment_lib.from_config(sections), tokenizer)
    head = experiment.make_task(tokenizer)
    params = module.init(lambda rngs: head.build_model(experiment.model, rngs), jax.random.key(1))
    checkpoint.write_params(
        workdir, params, {'config': experiment.as_dict(), 'tokenizer': json.loads(tokenizer.to_json())}
    )


def make_inputs(batch, length):
    rng = np.random.default_rng(length)
    tokens = rng.integers(5, len(VOCAB), (batch, length)).astype(np.int32)
    segments = (np.arange(length) >= length // 2).astype(np.int32)[None].repeat(batch, 0)
    return tokens, segments, np.arange(length) < rng.integers(2, length + 1, batch)[:, None]


def check_outputs(outputs, model, inputs, targets=None):
    """Compare the outputs of a program with those of the model, except at padding."""
    tokens, segments, valid = inputs
    expected = model(tokens, segments, valid, **({} if targets is None else {'targets': targets}))
    arrays = {
        'hidden_state': expected.hidden_states[-1],
        'pooled': expected.pooled,
        'logits': expected.logits,
    }
    arrays = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    assert outputs.keys() == arrays.keys()
    for name, array in arrays.items():
        rows = valid if array.ndim == 3 and targets is None else slice(None)
        np.testing.assert_allclose(np.asarray(outputs[name])[rows], array[rows], atol=1e-4, err_msg=name)


@pytest.mark.parametrize('case', CASES)
def test_program_equals_model_for_any_shape(case, tmp_path):
    write_checkpoint(tmp_path / 'run', case)
    export.to_jax(tmp_path / 'run', tmp_path / 'out', ['cpu', 'cuda', 'tpu'])
    program = jax.export.deserialize(bytearray((tmp_path / 'out' / 'program.jax').read_bytes()))
    assert program.platforms == ('cpu', 'cuda', 'tpu')
    params = load_file(tmp_path / 'out' / 'params.safetensors')
    model, _ = bert_jax.load(tmp_path / 'run')
    for shape in ((1, 5), (3, 24)):
        inputs = make_inputs(*shape)
        targets = [inputs[0][:, ::-1][:, :4]] if CASES[case][0] == 'denoise' else []
        check_outputs(program.call(params, *inputs, *targets), model, inputs, *targets)


def run_example(folder):
    """Run the example of a README in a process that has no bert_jax; return what it prints."""
    code = re.search('```python\n(.*?)```', (folder / 'README.md').read_text(), re.DOTALL)[1]
    code += '\nimport sys\nassert not any(name.startswith("bert_jax") for name in sys.modules)\n'
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=folder.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_runs_without_bert_jax(tmp_path):
    write_checkpoint(tmp_path / 'run', 'bert')
    export.to_jax(tmp_path / 'run', tmp_path / 'out', ['cpu'])
    assert "'logits': (2, 3)" in run_example(tmp_path / 'out')
    assert 'the classes `a`, `b`, `c`' in (tmp_path / 'out' / 'README.md').read_text()
    with pytest.raises(UserError, match=r"out' exists and is not empty\. Choose another --out"):
        export.to_jax(tmp_path / 'run', tmp_path / 'out', ['cpu'])


@pytest.mark.parametrize('case', [case for case in CASES if CASES[case][0] != 'denoise'])
def test_onnx_equals_model_for_any_batch(case, tmp_path):
    pytest.importorskip('jax2onnx', reason='jax2onnx is an optional package')
    import onnxruntime

    write_checkpoint(tmp_path / 'run', case)
    export.to_onnx(tmp_path / 'run', tmp_path / 'out', 11)
    session = onnxruntime.InferenceSession(tmp_path / 'out' / 'model.onnx')
    names = [output.name for output in session.get_outputs()]
    model, _ = bert_jax.load(tmp_path / 'run')
    for batch in (1, 3):
        inputs = make_inputs(batch, 11)
        named = dict(zip(('tokens', 'segments', 'valid'), inputs, strict=True))
        used = {x.name: named[x.name] for x in session.get_inputs()}
        check_outputs(dict(zip(names, session.run(None, used), strict=True)), model, inputs)
    if case == 'bert':
        assert "'logits': (2, 3)" in run_example(tmp_path / 'out')


def test_onnx_without_its_package_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(UserError, match='Run `pip install jax2onnx onnxruntime`'):
        export.to_onnx(tmp_path, tmp_path / 'out', 8)


@pytest.mark.parametrize('flag', ['checkpoint', 'out'])
def test_empty_flags_are_errors(flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = {'checkpoint': 'run', 'out': 'out'} | {flag: ''}
    done = run_in_process('bert_jax.bin.export', *(f'--{name}={value}' for name, value in flags.items()))
    assert done.returncode == 2
    assert f'--{flag} is empty; set it to a value' in done.stderr
    assert not [*tmp_path.iterdir()]


def test_other_users_may_read_the_parameters(tmp_path):
    write_checkpoint(tmp_path / 'run', 'bert')
    old = os.umask(0o022)
    try:
        export.to_jax(tmp_path / 'run', tmp_path / 'out', ['cpu'])
    finally:
        os.umask(old)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / 'out').iterdir()} == {0o644}
