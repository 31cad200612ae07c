"""Models of two layers, 32 wide, whose parameters are large enough for everything to matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.modeling import bert, module
from bert_jax.modeling.bert import Bert

VOCAB, POSITIONS, WIDTH = 100, 40, 32
DEFAULTS = dict(
    size='tiny',
    width=WIDTH,
    heads=4,
    mlp=64,
    vocab_size=VOCAB,
    positions=POSITIONS,
    dropout=0.0,
    attention_dropout=0.0,
    init_std=0.3,
)
# Settings of a present-day encoder: every variant at once.
MODERN = dict(norm='pre', norm_kind='rms', bias=False, gated=True, activation='silu', rotary=10_000.0)


def config(**changes):
    return bert.Config(**{**DEFAULTS, **changes})


def parts(make=Bert, **changes):
    """Structure and parameters of `make(config, rngs)`, biases and norm scales made random too."""
    c = config(**changes)
    graph, params = module.split(_maker(make, c)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    noise = {name: jnp.asarray(rng.normal(0, 0.1, p.shape), jnp.float32) for name, p in params.items()}
    small = ('bias', 'scale')
    return graph, {name: p + noise[name] if name.endswith(small) else p for name, p in params.items()}


def model(make=Bert, **changes):
    return module.merge(*parts(make, **changes))


def texts(batch=2, length=9, seed=0):
    """[B, T] tokens and segments, int32."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, VOCAB, (batch, length), dtype=np.int32)
    return jnp.asarray(tokens), jnp.asarray(rng.integers(0, 2, (batch, length), dtype=np.int32))


@functools.cache
def _maker(make, c):
    from flax import nnx

    return lambda key: make(c, nnx.Rngs(key))


def influence(graph, params, tokens, segments=None, valid=None, key=None):
    """[T, T]: how much the last hidden state at i changes with the embedding at j, for one row."""
    direction = jnp.asarray(np.random.default_rng(1).normal(size=WIDTH), jnp.float32)

    @jax.jit
    def outputs(positions):
        out = module.merge(graph, {**params, 'positions': positions})(tokens, segments, valid, key)
        return out.hidden_states[-1][0] @ direction

    length = tokens.shape[1]
    jacobian = jax.jacrev(outputs)(params['positions'])
    return np.linalg.norm(jacobian, axis=-1)[:, :length]


def equations(jaxpr, inside=()):
    """All equations of a jaxpr, those of inner jaxprs included, with the names that enclose each."""
    for eqn in jaxpr.eqns:
        yield eqn, inside
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, 'jaxpr', inner)
                if hasattr(inner, 'eqns'):
                    yield from equations(inner, (*inside, eqn.primitive.name))
