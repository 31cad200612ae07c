"""Models of two layers, 32 wide, whose parameters are large enough for everything to matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.modeling import bart, bert, gpt, module
from bert_jax.modeling.bert import Bert

VOCAB, WIDTH = 100, 32
DEFAULTS = dict(
    size='tiny',
    width=WIDTH,
    heads=4,
    mlp=64,
    vocab_size=VOCAB,
    positions=40,
    dropout=0.0,
    attention_dropout=0.0,
)
# Settings of a present-day encoder: every variant at once.
MODERN = dict(norm='pre', norm_kind='rms', bias=False, gated=True, activation='silu', rotary=10_000.0)
# As T5: its positions are learned distances.
T5 = dict(norm='pre', norm_kind='rms', bias=False, activation='relu', relative=8, relative_range=12)


def config(make=Bert, **changes):
    """The config of a model, by its class."""
    name = getattr(make, '__name__', '').lower()
    of = next((m for m in (gpt, bart) if name.startswith(m.__name__.rpartition('.')[2])), bert)
    return of.Config(**{**DEFAULTS, **changes})


@functools.cache
def parts(make=Bert, **changes):
    """Structure and parameters of `make(config, rngs)`; no bias is zero and no norm scale one."""
    graph, shapes, _ = module.abstract(functools.partial(make, config(make, **changes)))
    rng = np.random.default_rng(0)
    params = {
        name: rng.normal(name.endswith('scale'), 0.3, s.shape).astype(s.dtype) for name, s in shapes.items()
    }
    return graph, jax.tree.map(jnp.asarray, params)


@functools.partial(jax.jit, static_argnums=0)
def _apply(graph, params, args, kwargs):
    return module.merge(graph, params)(*args, **kwargs)


def runner(graph, params):
    """The model with these parameters as one compiled function."""
    return lambda *args, **kwargs: _apply(graph, params, args, kwargs)


def model(make=Bert, **changes):
    return runner(*parts(make, **changes))


def texts(batch=2, length=9):
    """[B, T] tokens and segments, int32."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, VOCAB, (batch, length), dtype=np.int32)
    return tokens, rng.integers(0, 2, (batch, length), dtype=np.int32)


def influence(graph, params, tokens, segments=None, valid=None):
    """[T, T]: how much the last hidden state at i changes with the embedding at j, for one row."""
    direction = np.random.default_rng(1).normal(size=WIDTH).astype(np.float32)

    @jax.jit
    def jacobian(params):
        def outputs(words):  # one for each position
            numbers = jnp.arange(len(words))[None]
            out = module.merge(graph, {**params, 'words': words})(numbers, segments, valid)
            return out.hidden_states[-1][0] @ direction

        return jax.jacrev(outputs)(params['words'][tokens[0]])

    segments, valid = (x if x is None else jnp.asarray(x) for x in (segments, valid))
    return np.linalg.norm(jacobian(params), axis=-1)


def equations(jaxpr):
    """All equations of a jaxpr, those of inner jaxprs included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, 'jaxpr', inner)
                if hasattr(inner, 'eqns'):
                    yield from equations(inner)
