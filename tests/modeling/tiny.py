"""Models of two layers, 32 wide, whose parameters are large enough for every one of them to matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core import stacking
from bert_jax.modeling import bart, bert, gpt, module
from bert_jax.modeling.bert import Bert

VOCAB, WIDTH = 100, 32
DEFAULTS = dict(
    size='tiny',
    width=WIDTH,
    heads=4,
    mlp_width=64,
    vocab_size=VOCAB,
    max_positions=40,
    dropout=0.0,
    attention_dropout=0.0,
)
# Every variant of a modern encoder at once.
MODERN = dict(
    norm_placement='pre',
    norm_kind='rms',
    use_bias=False,
    gated_mlp=True,
    activation='silu',
    rope_base=10_000.0,
)
# The variants of ModernBERT, with local layers: 0 and 2 are global, the others attend at most 3 tokens away.
LOCAL = dict(
    norm_placement='pre',
    norm_bias=False,
    first_norm=False,
    use_bias=False,
    gated_mlp=True,
    prediction_head=True,
    rope_base=10_000.0,
    local_rope_base=100.0,
    window=3,
    global_every=2,
    layers=4,
)
# The variants of EuroBERT.
EUROBERT = MODERN | dict(
    kv_heads=2,
    embedding_norm=False,
    tied_embeddings=False,
    masked_lm_transform=False,
    pooling='late',
    pooler_activation='gelu',
    head_bias=True,
)
# The variants of DeBERTa, with disentangled attention.
DEBERTA = dict(disentangled_buckets=6, relative_max_distance=12, pooler_activation='gelu')
# The variants of T5, with relative position biases and heads that are narrower than a quarter of the width.
T5 = dict(
    norm_placement='pre',
    norm_kind='rms',
    use_bias=False,
    activation='relu',
    relative_buckets=8,
    relative_max_distance=12,
    head_width=6,
    tied_embeddings=False,
    scale_logits=True,
)
# The variants of MPNet, NomicBERT and ALBERT. Here, ALBERT has two blocks for five layers.
MPNET = dict(relative_buckets=8, relative_max_distance=12, learned_positions=True, segments=0)
NOMIC = dict(rope_base=1000.0, gated_mlp=True, activation='silu', use_bias=False, head_bias=True)
ALBERT = dict(embedding_width=20, layer_groups=2, layers=5, activation='gelu_tanh')


def config(make=Bert, **changes):
    """The config of a model class, or of a function named after a model."""
    name = getattr(make, '__name__', '').lower()
    family = next((m for m in (gpt, bart) if name.startswith(m.__name__.rpartition('.')[2])), bert)
    return family.Config(**{**DEFAULTS, **changes})


@functools.cache
def graph_and_params(make=Bert, **changes):
    """Structure and parameters of `make(config, rngs)`; no bias is zero and no norm scale one.

    Each layer has the same parameters whether or not they are stacked.
    """
    graph, stored, _ = module.abstract(functools.partial(make, config(make, **changes)))
    shapes = module.abstract(functools.partial(make, config(make, **changes | {'scan_layers': False})))[1]
    rng = np.random.default_rng(0)
    params = {
        name: rng.normal(name.endswith('scale'), 0.3, s.shape).astype(s.dtype) for name, s in shapes.items()
    }
    return graph, stacking.stack(jax.tree.map(jnp.asarray, params), stored)


@functools.partial(jax.jit, static_argnums=0)
def _apply(graph, params, args, kwargs):
    return module.merge(graph, params)(*args, **kwargs)


def runner(graph, params):
    """The model with these parameters as one compiled function."""
    return lambda *args, **kwargs: _apply(graph, params, args, kwargs)


def model(make=Bert, **changes):
    """The model of `graph_and_params` as one compiled function."""
    return runner(*graph_and_params(make, **changes))


def compute(graph, params, function):
    """Return `function(model)` for the model with these parameters, compiled as a whole."""
    return jax.jit(lambda params: function(module.merge(graph, params)))(params)


def tokens_and_segments(batch=2, length=9):
    """[B, T] tokens and segments, int32."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, VOCAB, (batch, length), dtype=np.int32)
    return tokens, rng.integers(0, 2, (batch, length), dtype=np.int32)


def influence(graph, params, tokens, segments=None, valid=None):
    """[T, T] norms of the gradient of the last hidden state at i by the token embedding at j, for one row."""
    direction = np.random.default_rng(1).normal(size=WIDTH).astype(np.float32)

    @jax.jit
    def jacobian(params):
        def outputs(table):  # has one entry per position, so that each position has its own gradient
            ids = jnp.arange(len(table))[None]
            out = module.merge(graph, {**params, 'token_embedding': table})(ids, segments, valid)
            return out.hidden_states[-1][0] @ direction

        return jax.jacrev(outputs)(params['token_embedding'][tokens[0]])

    segments, valid = (x if x is None else jnp.asarray(x) for x in (segments, valid))
    return np.linalg.norm(jacobian(params), axis=-1)


def equations(jaxpr):
    """Iterate over all equations of a jaxpr, including those of inner jaxprs."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, 'jaxpr', inner)
                if hasattr(inner, 'eqns'):
                    yield from equations(inner)
