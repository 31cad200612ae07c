"""The same weights give the same outputs as in Hugging Face's BERT; see make_golden.py."""

import pathlib

import numpy as np
import pytest

from bert_jax.modeling.heads import BertForPretraining
from tests.modeling import tiny

FILE = pathlib.Path(__file__).with_name('golden_bert.npz')


@pytest.fixture(scope='module')
def golden():
    found = {'inputs': {}, 'params': {}, 'outputs': {}}
    with np.load(FILE) as arrays:
        for name in arrays:
            kind, _, key = name.partition(':')
            found[kind][key] = arrays[name]
    return found


def run(golden, **changes):
    graph, params = tiny.parts(BertForPretraining, vocab_size=99, pad_vocab_to=1, **changes)
    assert {n: p.shape for n, p in golden['params'].items()} == {n: p.shape for n, p in params.items()}
    inputs = {
        name: value if value.dtype == bool else value.astype(np.int32)
        for name, value in golden['inputs'].items()
    }
    return tiny.runner(graph, golden['params'])(**inputs)


@pytest.mark.parametrize('scan', [False, True])
def test_every_output_equals_hugging_face(golden, scan):
    found = run(golden, scan=scan)._asdict()
    assert found.keys() == golden['outputs'].keys()
    for name, expected in golden['outputs'].items():
        np.testing.assert_allclose(np.stack(found[name]), expected, atol=1e-5, rtol=0, err_msg=name)


def test_the_example_is_hard_enough(golden):
    inputs, outputs = golden['inputs'], golden['outputs']
    assert not inputs['valid'].all()
    assert set(inputs['segments'].ravel()) == {0, 1}
    for name, value in outputs.items():
        assert value.std() > 0.1, name
    assert abs(outputs['pooled']).max() < 0.9999
    tanh = run(golden, activation='gelu_tanh').logits
    assert abs(tanh - outputs['logits']).max() > 1e-4
