"""Causal LM: what is predicted, where documents meet, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.causal_rows import JoinedRows
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.modeling import module
from bert_jax.modeling.gpt import GptForCausalLM
from bert_jax.tasks import clm
from tests.modeling import tiny

VOCABULARY = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(95))])
DOCUMENTS = [[np.arange(10, 16)], [np.arange(30, 33), np.arange(40, 42)]]


def example(boundaries):
    task = clm.Task(clm.Config(boundaries=boundaries), TextConfig(), VOCABULARY)
    (row,) = JoinedRows(16)(DOCUMENTS, VOCABULARY, np.random.default_rng(0))
    return task, task.example(row, np.random.default_rng(0))


def test_every_token_but_the_first_is_predicted():
    _, batch = example(boundaries=False)
    assert batch['valid'].tolist() == [True] * 13 + [False] * 3
    assert batch['weights'].tolist() == [1.0] * 12 + [0.0] * 3


def test_with_boundaries_no_document_is_guessed_from_another():
    _, batch = example(boundaries=True)
    assert batch['valid'].tolist() == [1] * 7 + [2] * 6 + [0] * 3
    assert batch['weights'].tolist() == [1.0] * 6 + [0.0] + [1.0] * 5 + [0.0] * 3


@pytest.mark.parametrize('boundaries', [False, True])
@pytest.mark.parametrize('chunk', [0, 4])
def test_the_loss_is_that_of_the_logits(boundaries, chunk):
    task, one = example(boundaries)
    task = clm.Task(clm.Config(boundaries=boundaries, chunk=chunk), TextConfig(), VOCABULARY)
    batch = {k: jnp.asarray(v) for k, v in stack([one, one]).items()}
    graph, params = tiny.parts(GptForCausalLM)
    model = module.merge(graph, params)
    term = task.loss(model, batch, None).terms['lm_loss']
    scores = np.asarray(jax.nn.log_softmax(model(batch['tokens'], None, batch['valid']).logits))[0]
    expected = [-scores[i, one['tokens'][i + 1]] for i in np.flatnonzero(one['weights'])]
    assert float(term.weight) == 2 * len(expected)
    assert float(term.value()) == pytest.approx(np.mean(expected), rel=1e-5)


def test_flops_count_the_products_that_matter():
    task, one = example(boundaries=False)
    config = tiny.config(GptForCausalLM)
    head = 2 * 12 * tiny.WIDTH * tiny.VOCAB
    assert task.flops(config, stack([one])) == config.block_flops(13, 16) + head
