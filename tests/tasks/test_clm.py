"""The causal language modeling task: predicted positions, document boundaries, loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.causal_rows import JoinedRows
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.modeling.gpt import GptForCausalLM
from bert_jax.tasks import clm
from tests.modeling import tiny

VOCABULARY = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(95))])
DOCUMENTS = [[np.arange(10, 16)], [np.arange(30, 33), np.arange(40, 42)]]


def make_example(document_masking):
    task = clm.Task(clm.Config(document_masking=document_masking), TextConfig(), VOCABULARY)
    (row,) = JoinedRows(16)(DOCUMENTS, VOCABULARY, np.random.default_rng(0))
    return task, task.example(row, np.random.default_rng(0))


def test_all_tokens_but_the_first_are_predicted():
    _, batch = make_example(document_masking=False)
    assert batch['valid'].tolist() == [True] * 13 + [False] * 3
    assert batch['weights'].tolist() == [1.0] * 12 + [0.0] * 3


def test_document_masking_excludes_first_tokens_of_documents():
    _, batch = make_example(document_masking=True)
    assert batch['valid'].tolist() == [1] * 7 + [2] * 6 + [0] * 3
    assert batch['weights'].tolist() == [1.0] * 6 + [0.0] + [1.0] * 5 + [0.0] * 3


@pytest.mark.parametrize('document_masking', [False, True])
@pytest.mark.parametrize('loss_chunk', [0, 4])
def test_loss_matches_the_logits(document_masking, loss_chunk):
    task, example = make_example(document_masking)
    task = clm.Task(
        clm.Config(document_masking=document_masking, loss_chunk=loss_chunk), TextConfig(), VOCABULARY
    )
    batch = {k: jnp.asarray(v) for k, v in stack([example, example]).items()}
    parts = tiny.graph_and_params(GptForCausalLM)
    term = tiny.compute(*parts, lambda model: task.loss(model, batch, None).losses['lm_loss'])
    logits = tiny.runner(*parts)(batch['tokens'], None, batch['valid']).logits
    scores = np.asarray(jax.nn.log_softmax(logits))[0]
    expected = [-scores[i, example['tokens'][i + 1]] for i in np.flatnonzero(example['weights'])]
    assert float(term.weight) == 2 * len(expected)
    assert float(term.value()) == pytest.approx(np.mean(expected), rel=1e-5)


def test_masked_documents_have_the_losses_of_single_rows():
    task, example = make_example(document_masking=True)
    alone = []
    for document in DOCUMENTS:
        (row,) = JoinedRows(16)([document], VOCABULARY, np.random.default_rng(0))
        alone.append(task.example(row, np.random.default_rng(0)))
    graph, params = tiny.graph_and_params(GptForCausalLM)
    batches = [jax.tree.map(jnp.asarray, stack(examples)) for examples in ([example], alone)]
    packed, single = (
        tiny.compute(graph, params, lambda m, b=b: task.loss(m, b, None).losses['lm_loss']) for b in batches
    )
    assert float(packed.weight) == float(single.weight) == 11
    assert float(packed.total) == pytest.approx(float(single.total), abs=1e-5, rel=1e-5)


def test_flops_are_those_of_blocks_and_head():
    task, example = make_example(document_masking=False)
    config = tiny.config(GptForCausalLM)
    head = 2 * 12 * tiny.WIDTH * tiny.VOCAB
    assert task.flops(config, stack([example])) == config.block_flops(13, 13) + head
