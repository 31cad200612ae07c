"""Texts that share a row: no gradient between them, and the outputs of one text a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.modeling import module
from bert_jax.modeling.bart import Bart
from bert_jax.modeling.bert import Bert
from bert_jax.modeling.gpt import Gpt
from tests.modeling import tiny

LENGTHS = (7, 1, 12)
DOCUMENTS = np.repeat([1, 2, 3, 0], [*LENGTHS, 2])[None].astype(np.int32)
TARGETS = np.repeat([1, 2, 3, 0], [3, 8, 2, 1])[None].astype(np.int32)
MODELS = pytest.mark.parametrize(
    ('make', 'changes'),
    [
        *((Bert, changes) for changes in ({}, tiny.MODERN, tiny.LOCAL, tiny.T5)),
        *((Bert, changes) for changes in (tiny.MPNET, tiny.NOMIC, tiny.ALBERT, tiny.DEBERTA)),
        (Gpt, {}),
        (Bart, {}),
    ],
)


def influence(make, changes, targets):
    """[L, n, n] norms of the gradients of all hidden states of the n tokens by the embeddings of the tokens.

    With `targets`, a document number for each target of a Bart, the targets follow the source.
    """
    graph, params = tiny.graph_and_params(make, **changes)
    size, n = DOCUMENTS.size, DOCUMENTS.size + (0 if targets is None else targets.size)
    direction = np.random.default_rng(1).normal(size=tiny.WIDTH).astype(np.float32)

    @jax.jit
    def jacobian(table):
        def outputs(table):  # has one entry per token, so that each token has its own gradient
            ids = jnp.arange(n)[None]
            model = module.merge(graph, {**params, 'token_embedding': table})
            if targets is None:
                out = model(ids, valid=DOCUMENTS)
                hidden = [*(out.encoder_hidden_states or ()), *out.hidden_states]
            else:
                out = model(ids[:, :size], ids[:, size:], DOCUMENTS, target_documents=targets)
                pairs = zip(out.encoder_hidden_states, out.hidden_states, strict=True)
                hidden = [jnp.concatenate(pair, 1) for pair in pairs]
            return jnp.concatenate(hidden) @ direction

        return jax.jacrev(outputs)(table)

    tokens, _ = tiny.tokens_and_segments(1, n)
    return np.linalg.norm(jacobian(params['token_embedding'][tokens[0]]), axis=-1)


@MODELS
def test_no_gradient_crosses_texts(make, changes):
    norms, number = influence(make, changes, None), DOCUMENTS[0]
    is_same = number[:, None] == number
    assert (norms[:, ~is_same & (number[:, None] > 0)] == 0).all()
    seen = np.tril(is_same) if make is Gpt else is_same
    assert (norms[-1][seen & (number > 0)] > 0).all()


@pytest.mark.parametrize('changes', [{}, tiny.MODERN, tiny.T5])
def test_no_gradient_crosses_texts_with_targets(changes):
    norms, number = influence(Bart, changes, TARGETS), np.concatenate([DOCUMENTS[0], TARGETS[0]])
    is_same = number[:, None] == number
    assert (norms[:, ~is_same & (number[:, None] > 0)] == 0).all()
    size, is_real = DOCUMENTS.size, number > 0
    seen = is_same & is_real
    assert (norms[-1][:, :size][seen[:, :size]] > 0).all(), 'all attend to the source of their text'
    assert (norms[-1][size:, size:][np.tril(seen[size:, size:])] > 0).all()


@MODELS
def test_hidden_states_equal_those_of_single_texts(make, changes):
    # Each text has a learned position for all of its tokens, but the row has not.
    run = tiny.model(make, **changes, max_positions=max(LENGTHS))
    tokens, _ = tiny.tokens_and_segments(1, DOCUMENTS.size)
    packed = run(tokens, valid=DOCUMENTS).hidden_states[-1][0]
    for number, length in enumerate(LENGTHS, 1):
        text = np.flatnonzero(DOCUMENTS[0] == number)
        row = np.zeros((1, max(LENGTHS)), np.int32)
        row[0, :length] = tokens[0, text]
        alone = run(row, valid=np.arange(max(LENGTHS))[None] < length).hidden_states[-1][0, :length]
        np.testing.assert_allclose(packed[text], alone, atol=1e-5)


@pytest.mark.parametrize('changes', [{}, tiny.MODERN, tiny.T5])
def test_targets_have_the_hidden_states_of_single_texts(changes):
    run = tiny.model(Bart, **changes, max_positions=max(LENGTHS))
    tokens, _ = tiny.tokens_and_segments(1, DOCUMENTS.size)
    targets, _ = tiny.tokens_and_segments(1, TARGETS.size)
    packed = run(tokens, targets, DOCUMENTS, target_documents=TARGETS).hidden_states[-1][0]
    for number in (1, 2, 3):
        source, target = DOCUMENTS[0] == number, TARGETS[0] == number
        alone = run(tokens[:, source], targets[:, target]).hidden_states[-1][0]
        np.testing.assert_allclose(packed[target], alone, atol=1e-5)
