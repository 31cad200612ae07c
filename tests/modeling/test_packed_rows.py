"""Texts that share a row: no gradient between them, and the outputs of one text a row."""

import numpy as np
import pytest

from bert_jax.modeling.bart import Bart
from bert_jax.modeling.bert import Bert
from bert_jax.modeling.gpt import Gpt
from tests.modeling import tiny

LENGTHS = (7, 1, 12)
DOCUMENTS = np.repeat([1, 2, 3, 0], [*LENGTHS, 2])[None].astype(np.int32)
MODELS = pytest.mark.parametrize(
    ('make', 'changes'),
    [(Bert, {}), (Bert, tiny.MODERN), (Bert, tiny.LOCAL), (Bert, tiny.T5), (Gpt, {}), (Bart, {})],
)


@pytest.mark.parametrize('make', [Bert, Gpt, Bart])
def test_no_gradient_crosses_texts(make):
    tokens, _ = tiny.tokens_and_segments(1, DOCUMENTS.size)
    found = tiny.influence(*tiny.graph_and_params(make), tokens, None, DOCUMENTS)
    number = DOCUMENTS[0]
    is_same = (number[:, None] == number) & (number > 0)
    assert (found[(number[:, None] > 0) & ~is_same] == 0).all()
    is_seen = np.tril(is_same) if make is Gpt else is_same
    assert (found[is_seen] > 0).all()


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
