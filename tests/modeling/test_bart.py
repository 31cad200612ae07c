"""BART: attention patterns, padding, positions, generation and floating-point operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import bart, beam_search, decoding, module
from bert_jax.modeling.bart import Bart, BartForSeq2Seq
from bert_jax.train.flops import matmul_flops
from tests.modeling import tiny

VARIANTS = pytest.mark.parametrize(
    'variant',
    [{}, tiny.MODERN, tiny.T5, {'scan_layers': True, 'layers': 3}],
    ids=['bart', 'modern', 't5', 'scan'],
)
S, T = 7, 5


def influence(variant, valid):
    """[S + T, S + T] norms of the gradient of the last hidden states, of encoder then decoder, by token embeddings."""
    graph, params = tiny.graph_and_params(Bart, **variant)
    tokens = tiny.tokens_and_segments(1, S + T)[0][0]
    direction = np.random.default_rng(1).normal(size=tiny.WIDTH).astype(np.float32)

    @jax.jit
    def jacobian(table):
        def outputs(table):  # has one entry per position, so that each position has its own gradient
            ids = jnp.arange(S + T)[None]
            model = module.merge(graph, {**params, 'token_embedding': table})
            out = model(ids[:, :S], ids[:, S:], valid)
            last = jnp.concatenate([out.encoder_hidden_states[-1][0], out.hidden_states[-1][0]])
            return last @ direction

        return jax.jacrev(outputs)(table)

    return np.linalg.norm(jacobian(params['token_embedding'][tokens]), axis=-1)


@VARIANTS
def test_the_decoder_attends_to_the_source_and_earlier_targets(variant):
    norms = influence(variant, None)
    allowed = np.zeros((S + T, S + T), bool)
    allowed[:, :S] = True
    allowed[S:, S:] = np.tri(T, dtype=bool)
    assert (norms[allowed] > 1e-4).all()
    assert (norms[~allowed] == 0).all()


@VARIANTS
def test_encoder_and_decoder_ignore_padding(variant):
    norms = influence(variant, jnp.arange(S)[None] < 4)
    assert (norms[:4, 4:S] == 0).all()
    assert (norms[S:, 4:S] == 0).all()
    assert (norms[S:, :4] > 1e-4).all()


@VARIANTS
def test_greedy_generation_equals_repeated_argmax_without_cache(variant):
    graph, params = tiny.graph_and_params(BartForSeq2Seq, **variant)
    tokens = tiny.tokens_and_segments(2, S)[0]
    valid = np.arange(S) < np.array([[S], [4]])
    generated = decoding.generate(graph, params, [np.array([3])] * 2, 8, end=-1, source=(tokens, valid))
    run = tiny.runner(graph, params)
    for i in range(2):
        targets = np.zeros((1, 9), np.int32)  # padded, to compile once
        targets[0, 0] = 3
        for j in range(1, 9):
            logits = run(tokens[i : i + 1], targets, valid[i : i + 1]).logits
            targets[0, j] = np.argmax(logits[0, j - 1])
        assert generated[i].tolist() == targets[0, 1:].tolist()


def test_beam_search_of_a_row_does_not_depend_on_the_batch():
    graph, params = tiny.graph_and_params(BartForSeq2Seq)
    texts = np.random.default_rng(0).integers(5, tiny.VOCAB, (6, 9)).astype(np.int32)
    valid = np.arange(9) < np.array([9, 1, 5, 7, 9, 3])[:, None]
    end, prompts = 42, [np.array([2])] * 6
    params = {**params, 'logits_bias': params['logits_bias'].at[end].add(8.0)}
    options = dict(end=end, num_beams=4, length_penalty=2.0)
    batched = beam_search.search(graph, params, prompts, 16, source=(texts, valid), **options)
    separate = [
        beam_search.search(
            graph, params, prompts[:1], 16, source=(texts[i : i + 1], valid[i : i + 1]), **options
        )[0]
        for i in range(6)
    ]
    assert len({len(row) for row in batched}) > 1
    assert [row.tolist() for row in batched] == [row.tolist() for row in separate]


def test_positions_of_the_targets_can_be_set():
    run = tiny.model(Bart)
    tokens, targets = tiny.tokens_and_segments(1, S)[0], tiny.tokens_and_segments(1, T)[0]
    default = run(tokens, targets).hidden_states[0]
    shifted = run(tokens, targets, positions=np.arange(T)[None] + 3).hidden_states[0]
    explicit = run(tokens, targets, positions=np.arange(T)[None]).hidden_states[0]
    np.testing.assert_array_equal(default, explicit)
    assert (np.abs(default - shifted) > 1e-3).any()


def test_the_decoder_can_have_another_number_of_layers():
    out = tiny.model(Bart, decoder_layers=3)(*[tiny.tokens_and_segments(1, n)[0] for n in (S, T)])
    assert (len(out.encoder_hidden_states), len(out.hidden_states)) == (3, 4)
    assert out.hidden_states[-1].shape == (1, T, tiny.WIDTH)


@pytest.mark.parametrize('changes', [{}, {'head_width': 6}])
def test_seq2seq_flops_equal_those_of_the_matrix_products(changes):
    config = tiny.config(Bart, decoder_layers=3, **changes)
    model = module.merge(*tiny.graph_and_params(Bart, decoder_layers=3, **changes))
    tokens, targets = (jnp.asarray(tiny.tokens_and_segments(2, n)[0]) for n in (S, T))
    flops = matmul_flops(jax.make_jaxpr(model)(tokens, targets).jaxpr)
    flops -= 3 * 2 * T * 2 * T * config.heads * config.width_per_head  # causal attention counts half
    assert config.seq2seq_flops(2 * S, S, 2 * T, T) == flops


def test_unknown_sizes_are_rejected():
    with pytest.raises(UserError, match="model.size='huge' is not a size of BART"):
        bart.Config(size='huge')
