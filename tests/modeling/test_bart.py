"""The encoder-decoder: what each half sees, padding, positions, and the cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import bart, beam_search, decoding, module
from bert_jax.modeling.bart import Bart, BartForSeq2Seq
from tests.modeling import tiny

VARIANTS = pytest.mark.parametrize(
    'variant', [{}, tiny.MODERN, tiny.T5, {'scan': True}], ids=['bart', 'modern', 't5', 'scan']
)
S, T = 7, 5


def influence(variant, valid):
    """How much each token of both texts changes the last hidden states of both: [S + T, S + T]."""
    graph, params = tiny.parts(Bart, **variant)
    tokens = tiny.texts(1, S + T)[0][0]
    direction = np.random.default_rng(1).normal(size=tiny.WIDTH).astype(np.float32)

    @jax.jit
    def jacobian(words):
        def outputs(words):  # one for each position
            numbers = jnp.arange(S + T)[None]
            out = module.merge(graph, {**params, 'words': words})(numbers[:, :S], numbers[:, S:], valid)
            last = jnp.concatenate([out.encoder_hidden_states[-1][0], out.hidden_states[-1][0]])
            return last @ direction

        return jax.jacrev(outputs)(words)

    return np.linalg.norm(jacobian(params['words'][tokens]), axis=-1)


@VARIANTS
def test_the_encoder_sees_its_text_and_the_decoder_all_of_it_and_what_stands_before(variant):
    seen = influence(variant, None)
    allowed = np.zeros((S + T, S + T), bool)
    allowed[:, :S] = True
    allowed[S:, S:] = np.tri(T, dtype=bool)
    assert (seen[allowed] > 1e-4).all()
    assert (seen[~allowed] == 0).all()


@VARIANTS
def test_no_half_sees_padding(variant):
    seen = influence(variant, jnp.arange(S)[None] < 4)
    assert (seen[:4, 4:S] == 0).all()
    assert (seen[S:, 4:S] == 0).all()
    assert (seen[S:, :4] > 1e-4).all()


@pytest.mark.parametrize('variant', [{}, tiny.MODERN, tiny.T5], ids=['bart', 'modern', 't5'])
def test_greedy_is_the_likeliest_token_again_and_again(variant):
    graph, params = tiny.parts(BartForSeq2Seq, **variant)
    tokens = tiny.texts(2, S)[0]
    valid = np.arange(S) < np.array([[S], [4]])
    made = decoding.generate(graph, params, [np.array([3])] * 2, 8, end=-1, source=(tokens, valid))
    run = tiny.runner(graph, params)
    for i in range(2):
        targets = [3]
        for _ in range(8):
            logits = run(tokens[i : i + 1], np.array([targets], np.int32), valid[i : i + 1]).logits
            targets.append(int(np.argmax(logits[0, -1])))
        assert made[i].tolist() == targets[1:]


def test_a_search_finds_the_same_alone_and_among_others():
    graph, params = tiny.parts(BartForSeq2Seq)
    texts = np.random.default_rng(0).integers(5, tiny.VOCAB, (6, 9)).astype(np.int32)
    valid = np.arange(9) < np.array([9, 1, 5, 7, 9, 3])[:, None]
    end, starts = 42, [np.array([2])] * 6
    params = {**params, 'logits_bias': params['logits_bias'].at[end].add(8.0)}
    options = dict(end=end, beams=4, length_penalty=2.0)
    together = beam_search.search(graph, params, starts, 16, source=(texts, valid), **options)
    alone = [
        beam_search.search(
            graph, params, starts[:1], 16, source=(texts[i : i + 1], valid[i : i + 1]), **options
        )[0]
        for i in range(6)
    ]
    assert len({len(row) for row in together}) > 1
    assert [row.tolist() for row in together] == [row.tolist() for row in alone]


def test_positions_can_be_given():
    run = tiny.model(Bart)
    tokens, targets = tiny.texts(1, S)[0], tiny.texts(1, T)[0]
    plain = run(tokens, targets).hidden_states[0]
    moved = run(tokens, targets, positions=np.arange(T)[None] + 3).hidden_states[0]
    np.testing.assert_array_equal(plain, run(tokens, targets, positions=np.arange(T)[None]).hidden_states[0])
    assert (np.abs(plain - moved) > 1e-3).any()


def test_the_decoder_may_have_other_layers():
    out = tiny.model(Bart, decoder_layers=3)(*[tiny.texts(1, n)[0] for n in (S, T)])
    assert (len(out.encoder_hidden_states), len(out.hidden_states)) == (3, 4)
    assert out.hidden_states[-1].shape == (1, T, tiny.WIDTH)


def test_flops_count_the_matrix_products():
    config = tiny.config(Bart, decoder_layers=3)
    graph, params = tiny.parts(Bart, decoder_layers=3)
    jaxpr = jax.make_jaxpr(module.merge(graph, params))(
        *[jnp.asarray(tiny.texts(2, n)[0]) for n in (S, T)]
    ).jaxpr
    flops = 0
    for eqn in tiny.equations(jaxpr):
        if eqn.primitive.name == 'dot_general':
            ((contracted, _), _), left = eqn.params['dimension_numbers'], eqn.invars[0].aval.shape
            flops += 2 * int(np.prod(eqn.outvars[0].aval.shape)) * int(np.prod([left[i] for i in contracted]))
    flops -= 3 * 2 * T * 2 * T * tiny.WIDTH  # causal attention counts half
    assert config.seq2seq_flops(2 * S, S, 2 * T, T) == flops


def test_what_cannot_be_is_named():
    with pytest.raises(UserError, match="no BART size 'huge'"):
        bart.Config(size='huge')
