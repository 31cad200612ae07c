"""Tests of shifts of hidden states."""

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.studies.mean_shift import shift_layer
from bert_jax.train import load
from tests.runs import hidden_states, pretrain


@pytest.mark.parametrize(
    'setting', ['model.norm_placement=post', 'model.norm_placement=pre', 'model.embedding_width=20']
)
def test_shift_changes_the_hidden_states_of_one_layer(setting, tmp_path, corpus, rows):
    assert pretrain(tmp_path, corpus, rows, setting, 'train.steps=1', 'optim.warmup=0') == 0
    trained = load.read(tmp_path)
    tokens = np.arange(6, 18, dtype=np.int32).reshape(2, 6)
    before = hidden_states(trained, tokens)
    vector = np.linspace(-1, 1, before[0].shape[-1])
    for layer, states in enumerate(before):
        params = shift_layer(trained.params, trained.experiment.model, layer, vector)
        after = hidden_states(trained._replace(params=params), tokens)
        np.testing.assert_allclose(after[layer], states + vector, atol=1e-5)
        for below in range(layer):
            np.testing.assert_array_equal(after[below], before[below])


def test_a_layer_that_shares_its_parameters_cannot_be_shifted(tmp_path, corpus, rows):
    settings = ('model.layer_groups=1', 'model.norm_placement=post', 'train.steps=1', 'optim.warmup=0')
    assert pretrain(tmp_path, corpus, rows, *settings) == 0
    trained = load.read(tmp_path)
    with pytest.raises(UserError, match='Layer 1 shares its parameters with others'):
        shift_layer(trained.params, trained.experiment.model, 1, np.ones(1))


def test_model_without_biases_cannot_be_shifted(tmp_path, corpus, rows):
    settings = ('model.norm_kind=rms', 'train.steps=1', 'optim.warmup=0')
    assert pretrain(tmp_path, corpus, rows, *settings) == 0
    trained = load.read(tmp_path)
    with pytest.raises(UserError, match='Use a model with biases'):
        shift_layer(trained.params, trained.experiment.model, 0, np.ones(1))
    assert shift_layer(trained.params, trained.experiment.model, 0, np.zeros(1)) is trained.params
