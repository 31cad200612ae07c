"""The decoder: what each position sees, shared key heads, its start, and its loss."""

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
    [{}, {**tiny.MODERN, 'kv_heads': 2}, {'norm': 'post'}, {'scan': True}],
    ids=['gpt2', 'modern', 'post', 'scan'],
)


@VARIANTS
def test_a_token_sees_what_stands_before_it(variant):
    tokens, _ = tiny.texts(1, 9)
    seen = tiny.influence(*tiny.parts(Gpt, **variant), tokens)
    before = np.tri(9, dtype=bool)
    assert (seen[before] > 1e-4).all()
    assert (seen[~before] == 0).all()


@VARIANTS
def test_a_document_of_a_joined_row_sees_itself_alone(variant):
    tokens, _ = tiny.texts(1, 9)
    documents = np.array([1, 1, 1, 2, 2, 3, 3, 0, 0], np.int32)
    seen = tiny.influence(*tiny.parts(Gpt, **variant), tokens, None, documents[None])
    allowed = np.tri(9, dtype=bool) & (documents[:, None] == documents[None])
    real = documents != 0
    assert (seen[real][allowed[real]] > 1e-4).all()
    assert (seen[real][~allowed[real]] == 0).all()


@VARIANTS
def test_logits_do_not_depend_on_what_follows(variant):
    run = tiny.model(GptForCausalLM, **variant)
    tokens, _ = tiny.texts(2, 12)
    whole = run(tokens)
    assert whole.logits.shape == (2, 12, tiny.VOCAB)
    assert len(whole.hidden_states) == 3
    np.testing.assert_allclose(run(tokens[:, :7]).logits, whole.logits[:, :7], atol=2e-5)


def test_shared_key_heads_equal_repeated_ones():
    """The same model with the kernels of keys and values repeated has a head of them for each of queries."""
    _, params = tiny.parts(Gpt, kv_heads=2)
    graph, wide = tiny.parts(Gpt)
    for name in wide:
        if '/qkv/' in name:
            q, kv = (params[name.replace('/qkv/', f'/{part}/')] for part in ('q', 'kv'))
            axis = q.ndim - 2
            wide = {
                **wide,
                name: jnp.concatenate([jnp.expand_dims(q, axis), jnp.repeat(kv, 2, axis + 1)], axis),
            }
        else:
            wide = {**wide, name: params[name]}
    tokens, _ = tiny.texts()
    shared = tiny.model(Gpt, kv_heads=2)(tokens).hidden_states[-1]
    np.testing.assert_allclose(shared, tiny.runner(graph, wide)(tokens).hidden_states[-1], atol=2e-5)


def test_scan_equals_one_by_one():
    tokens, _ = tiny.texts()
    one, other = tiny.model(Gpt)(tokens), tiny.model(Gpt, scan=True)(tokens)
    for a, b in zip(one.hidden_states, other.hidden_states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ('size', 'parameters'),
    [('small', 124_439_808), ('medium', 354_823_168), ('large', 774_030_080), ('xl', 1_557_611_200)],
)
def test_sizes_have_the_parameters_of_the_published_models(size, parameters):
    config = gpt.Config(size=size, vocab_size=50_257, pad_vocab_to=1)
    _, shapes, _ = module.abstract(lambda rngs: GptForCausalLM(config, rngs))
    assert sum(math.prod(s.shape) for s in shapes.values()) == parameters


def test_projections_into_the_residual_stream_begin_smaller():
    config = gpt.Config(size='tiny', vocab_size=100, layers=8)
    params = module.init(lambda rngs: Gpt(config, rngs), jax.random.key(0))
    for name, value in params.items():
        if name.endswith('kernel'):
            small = '/out/' in name or '/down/' in name
            assert float(value.std()) == pytest.approx(0.02 * 0.88 / (4 if small else 1), rel=0.05)


@pytest.mark.parametrize('changes', [{'kv_heads': 5}, {'size': 'huge'}, {'kv_heads': -1}])
def test_shapes_that_cannot_be_are_named(changes):
    with pytest.raises(UserError, match='kv_heads|huge'):
        gpt.Config(**{'vocab_size': 9, **changes})


@pytest.mark.parametrize('chunk', [1, 3, 4, 7, 50])
def test_the_loss_in_chunks_is_the_loss(chunk):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(3, 7, 16)), jnp.float32)
    table, bias = jnp.asarray(rng.normal(size=(29, 16)), jnp.float32), jnp.zeros(29)
    labels = jnp.asarray(rng.integers(0, 29, (3, 7)))
    weights = jnp.asarray(rng.random((3, 7)), jnp.float32)

    def total(hidden, table, chunk):
        return (losses.sequence_loss(hidden, table, bias, labels, chunk)[0] * weights).sum()

    one, other = (
        jax.jit(losses.sequence_loss, static_argnums=4)(hidden, table, bias, labels, c) for c in (0, chunk)
    )
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    np.testing.assert_array_equal(one[1], other[1])
    grads = [jax.jit(jax.grad(total, (0, 1)), static_argnums=2)(hidden, table, c) for c in (0, chunk)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *grads)


def test_the_loss_in_chunks_never_holds_all_logits():
    hidden, table = jnp.ones((4, 64, 8)), jnp.ones((1000, 8))
    labels = jnp.zeros((4, 64), jnp.int32)

    def largest(chunk):
        def total(hidden, table):
            return losses.sequence_loss(hidden, table, jnp.zeros(1000), labels, chunk)[0].sum()

        found = tiny.equations(jax.make_jaxpr(jax.grad(total, (0, 1)))(hidden, table).jaxpr)
        return max(v.aval.size for eqn in found for v in eqn.outvars if hasattr(v.aval, 'size'))

    assert largest(0) >= 4 * 64 * 1000
    assert largest(8) == 4 * 8 * 1000
