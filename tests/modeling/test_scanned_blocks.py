"""A model with stacked layers is the same model: initial parameters, attention weights and generated tokens."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from bert_jax.core import stacking
from bert_jax.modeling import attention, bert, decoding, module
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.modeling.bert import Bert
from bert_jax.modeling.gpt import Gpt, GptForCausalLM
from bert_jax.modeling.scanned_blocks import scanned_layers
from bert_jax.modeling.stack import unstack_model
from tests.modeling import tiny

LAYERS = {'layers': 5}


def test_the_repeated_layers_but_the_last_are_scanned():
    modern = dict(first_norm=False, norm_placement='pre', window=64, global_every=3, scan_layers=True)
    assert scanned_layers(bert.Config(layers=22, **modern)) == [range(i, 19, 3) for i in (1, 2, 3)]
    assert scanned_layers(bert.Config(layers=7, **modern)) == []
    assert scanned_layers(bert.Config(layers=12, scan_layers=True)) == [range(0, 11)]
    assert scanned_layers(bert.Config(layers=3, scan_layers=True)) == [range(0, 2)]
    assert scanned_layers(bert.Config(layers=2, scan_layers=True)) == []
    assert scanned_layers(bert.Config(layers=12)) == []


@pytest.mark.parametrize(
    ('make', 'settings'),
    [
        (Bert, LAYERS),
        (Bert, {**tiny.LOCAL, 'layers': 8}),
        (Bert, {**tiny.DEBERTA, 'layers': 4}),
        (Gpt, LAYERS),
        (BartForSeq2Seq, {**tiny.T5, 'layers': 3, 'decoder_layers': 4}),
    ],
    ids=['bert', 'local', 'deberta', 'gpt', 'bart'],
)
def test_stacked_layers_have_the_same_initial_parameters(make, settings):
    apart, stacked = (
        jax.jit(
            functools.partial(
                module.init, functools.partial(make, tiny.config(make, **settings, scan_layers=s))
            )
        )(jax.random.key(1))
        for s in (False, True)
    )
    assert any(map(stacking.is_stacked, stacked))
    layers = stacking.unstack(stacked)
    assert layers.keys() == apart.keys()
    for path, value in apart.items():
        np.testing.assert_array_equal(layers[path], value, err_msg=path)


def test_a_stacked_parameter_is_sharded_and_decayed_as_its_layers():
    graphs, shapes, axes = zip(
        *(
            module.abstract(
                functools.partial(Bert, tiny.config(**tiny.LOCAL | {'layers': 8}, scan_layers=scan))
            )
            for scan in (False, True)
        ),
        strict=True,
    )
    for path, names in axes[1].items():
        for layer in stacking.layer_paths(path):
            assert names == ((None, *axes[0][layer]) if stacking.is_stacked(path) else axes[0][layer])
    apart, stacked = (module.undecayed(*pair) for pair in zip(graphs, shapes, strict=True))
    assert apart == {layer for path in stacked for layer in stacking.layer_paths(path)}


@pytest.mark.parametrize('make', [Bert, BartForSeq2Seq], ids=['bert', 'bart'])
def test_stacked_layers_record_the_same_attention_weights(make):
    tokens, _ = tiny.tokens_and_segments()

    def run(model):
        with attention.record_weights() as weights:
            model(tokens)
        return weights

    apart, stacked = (
        tiny.compute(*tiny.graph_and_params(make, **LAYERS, scan_layers=s), run) for s in (False, True)
    )
    assert len(apart) == len(stacked) == (15 if make is BartForSeq2Seq else 5)
    for a, b in zip(apart, stacked, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('settings', [tiny.MPNET, tiny.NOMIC], ids=['mpnet', 'nomic'])
def test_stacked_layers_of_other_encoders_give_the_same_hidden_states(settings):
    tokens, segments = tiny.tokens_and_segments()
    valid = np.arange(9)[None] < np.array([[7], [9]])
    apart, stacked = (
        tiny.model(**settings, layers=5, scan_layers=s)(tokens, segments, valid).hidden_states
        for s in (False, True)
    )
    for a, b in zip(apart, stacked, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('settings', [LAYERS, {**tiny.LOCAL, 'layers': 6}], ids=['plain', 'local'])
def test_stacked_layers_generate_the_same_tokens(settings):
    prompts = [np.arange(7, 12), np.arange(30, 33)]
    if settings is not LAYERS:
        settings = {k: v for k, v in settings.items() if k != 'prediction_head'}
    apart, stacked = (
        decoding.generate(
            *tiny.graph_and_params(GptForCausalLM, **settings, scan_layers=s), prompts, 8, end=1
        )
        for s in (False, True)
    )
    for a, b in zip(apart, stacked, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_without_its_stacks_has_the_parameters_and_the_outputs_of_its_layers():
    graph, params = tiny.graph_and_params(BartForSeq2Seq, layers=4, scan_layers=True)
    model = module.merge(graph, params)
    unstacked = unstack_model(model)
    assert isinstance(unstacked.bart.encoder.layers.blocks, nnx.List)
    assert isinstance(model.bart.encoder.layers.blocks, nnx.Dict)
    apart_graph, apart = module.split(unstacked)
    assert apart.keys() == stacking.unstack(params).keys()
    tokens, _ = tiny.tokens_and_segments()
    np.testing.assert_allclose(
        tiny.runner(apart_graph, apart)(tokens).logits, tiny.runner(graph, params)(tokens).logits, atol=1e-4
    )
