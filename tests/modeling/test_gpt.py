"""GPT: causal attention, shared key heads, sizes, initial parameters and the loss in chunks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import gpt, losses, module
from bert_jax.modeling.gpt import Gpt, GptForCausalLM
from tests.modeling import tiny

VARIANTS = pytest.mark.parametrize(
    'variant',
    [{}, {**tiny.MODERN, 'kv_heads': 2}, {'norm_placement': 'post'}, {'scan_layers': True, 'layers': 3}],
    ids=['gpt2', 'modern', 'post', 'scan'],
)


@VARIANTS
def test_tokens_attend_to_themselves_and_earlier_tokens(variant):
    tokens, _ = tiny.tokens_and_segments(1, 9)
    influence = tiny.influence(*tiny.graph_and_params(Gpt, **variant), tokens)
    allowed = np.tri(9, dtype=bool)
    assert (influence[allowed] > 1e-4).all()
    assert (influence[~allowed] == 0).all()


@VARIANTS
def test_documents_of_a_packed_row_attend_to_themselves_only(variant):
    tokens, _ = tiny.tokens_and_segments(1, 9)
    documents = np.array([1, 1, 1, 2, 2, 3, 3, 0, 0], np.int32)
    influence = tiny.influence(*tiny.graph_and_params(Gpt, **variant), tokens, None, documents[None])
    allowed = np.tri(9, dtype=bool) & (documents[:, None] == documents[None])
    is_real = documents != 0
    assert (influence[is_real][allowed[is_real]] > 1e-4).all()
    assert (influence[is_real][~allowed[is_real]] == 0).all()


@VARIANTS
def test_logits_do_not_depend_on_later_tokens(variant):
    run = tiny.model(GptForCausalLM, **variant)
    tokens, _ = tiny.tokens_and_segments(2, 12)
    full = run(tokens)
    assert full.logits.shape == (2, 12, tiny.VOCAB)
    assert len(full.hidden_states) == variant.get('layers', 2) + 1
    np.testing.assert_allclose(run(tokens[:, :7]).logits, full.logits[:, :7], atol=2e-5)


def test_shared_key_heads_equal_repeated_ones():
    """Repeating the kernels of keys and values gives an equal model with one key head per query head."""
    _, params = tiny.graph_and_params(Gpt, kv_heads=2)
    graph, repeated = tiny.graph_and_params(Gpt)
    for name in repeated:
        if '/qkv/' in name:
            q, kv = (params[name.replace('/qkv/', f'/{part}/')] for part in ('q', 'kv'))
            axis = q.ndim - 2
            repeated = {
                **repeated,
                name: jnp.concatenate([jnp.expand_dims(q, axis), jnp.repeat(kv, 2, axis + 1)], axis),
            }
        else:
            repeated = {**repeated, name: params[name]}
    tokens, _ = tiny.tokens_and_segments()
    shared = tiny.model(Gpt, kv_heads=2)(tokens).hidden_states[-1]
    np.testing.assert_allclose(shared, tiny.runner(graph, repeated)(tokens).hidden_states[-1], atol=2e-5)


def test_scanned_layers_equal_unrolled_ones():
    tokens, _ = tiny.tokens_and_segments()
    one, other = (tiny.model(Gpt, layers=4, scan_layers=scan)(tokens) for scan in (False, True))
    for a, b in zip(one.hidden_states, other.hidden_states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ('size', 'parameters'),
    [('small', 124_439_808), ('medium', 354_823_168), ('large', 774_030_080), ('xl', 1_557_611_200)],
)
def test_published_sizes_have_their_number_of_parameters(size, parameters):
    config = gpt.Config(size=size, vocab_size=50_257, pad_vocab_multiple=1)
    _, shapes, _ = module.abstract(lambda rngs: GptForCausalLM(config, rngs))
    assert sum(math.prod(s.shape) for s in shapes.values()) == parameters


def test_residual_projections_have_smaller_initial_values():
    config = gpt.Config(size='tiny', vocab_size=100, layers=8)
    params = module.init(lambda rngs: Gpt(config, rngs), jax.random.key(0))
    for name, value in params.items():
        if name.endswith('kernel'):
            is_residual = '/out/' in name or '/down/' in name
            assert float(value.std()) == pytest.approx(0.02 * 0.88 / (4 if is_residual else 1), rel=0.05)


@pytest.mark.parametrize('changes', [{'kv_heads': 5}, {'size': 'huge'}, {'kv_heads': -1}])
def test_impossible_shapes_are_rejected(changes):
    with pytest.raises(UserError, match='kv_heads|huge'):
        gpt.Config(**{'vocab_size': 9, **changes})


@pytest.mark.parametrize('chunk', [1, 3, 4, 7, 50])
def test_the_loss_in_chunks_equals_the_full_loss(chunk):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(3, 7, 16)), jnp.float32)
    table, bias = jnp.asarray(rng.normal(size=(29, 16)), jnp.float32), jnp.zeros(29)
    labels = jnp.asarray(rng.integers(0, 29, (3, 7)))
    weights = jnp.asarray(rng.random((3, 7)), jnp.float32)

    def total(hidden, table, chunk):
        return (losses.sequence_loss(hidden, table, bias, labels, chunk)[0] * weights).sum()

    full, chunked = (
        jax.jit(losses.sequence_loss, static_argnums=4)(hidden, table, bias, labels, c) for c in (0, chunk)
    )
    np.testing.assert_allclose(full[0], chunked[0], rtol=1e-6)
    np.testing.assert_array_equal(full[1], chunked[1])
    grads = [jax.jit(jax.grad(total, (0, 1)), static_argnums=2)(hidden, table, c) for c in (0, chunk)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *grads)


def test_the_loss_in_chunks_never_materializes_all_logits():
    hidden, table = jnp.ones((4, 64, 8)), jnp.ones((1000, 8))
    labels = jnp.zeros((4, 64), jnp.int32)

    def largest_array(chunk):
        def total(hidden, table):
            return losses.sequence_loss(hidden, table, jnp.zeros(1000), labels, chunk)[0].sum()

        equations = tiny.equations(jax.make_jaxpr(jax.grad(total, (0, 1)))(hidden, table).jaxpr)
        return max(v.aval.size for eqn in equations for v in eqn.outvars if hasattr(v.aval, 'size'))

    assert largest_array(0) >= 4 * 64 * 1000
    assert largest_array(8) == 4 * 8 * 1000
