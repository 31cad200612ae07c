"""The encoder: what each position sees, its size, and its parameters at the start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import bert, module
from bert_jax.modeling.bert import Bert, BertForPretraining
from tests.modeling import tiny

VARIANTS = pytest.mark.parametrize('variant', [{}, tiny.MODERN], ids=['bert', 'modern'])


@VARIANTS
def test_every_token_sees_both_ways_and_no_padding(variant):
    tokens, segments = tiny.texts(1, 9)
    valid = np.arange(9)[None] < 6
    seen = tiny.influence(*tiny.parts(**variant), tokens, segments, valid)
    assert (seen[:6, :6] > 1e-4).all()
    assert (seen[:6, 6:] == 0).all()


@VARIANTS
def test_a_text_of_a_packed_row_sees_itself_alone(variant):
    tokens, segments = tiny.texts(1, 9)
    texts = np.array([1, 1, 1, 1, 2, 2, 2, 0, 0], np.int32)
    seen = tiny.influence(*tiny.parts(**variant), tokens, segments, texts[None])
    same = (texts[:, None] == texts[None]) & (texts != 0)
    real = texts != 0
    assert (seen[same] > 1e-4).all()
    assert (seen[real][~same[real]] == 0).all()


@VARIANTS
def test_a_packed_row_equals_its_texts_in_rows_of_their_own(variant):
    graph, params = tiny.parts(**variant)
    run = tiny.runner(graph, {k: jnp.zeros_like(v) if k == 'positions' else v for k, v in params.items()})
    tokens, segments = tiny.texts(1, 9)
    packed = run(tokens, segments, np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]])).hidden_states
    for start, stop in ((0, 4), (4, 7)):
        alone = run(tokens[:, start:stop], segments[:, start:stop]).hidden_states
        for a, b in zip(packed, alone, strict=True):
            np.testing.assert_allclose(a[:, start:stop], b, atol=2e-5)
    assert np.isfinite(packed[-1]).all()


def test_what_padding_holds_changes_nothing():
    run = tiny.model()
    tokens, segments = tiny.texts(2, 12)
    valid = np.arange(12)[None] < np.array([[7], [9]])
    one = run(np.where(valid, tokens, 0), np.where(valid, segments, 0), valid)
    other = run(np.where(valid, tokens, 77), np.where(valid, segments, 1), valid)
    for a, b in zip(one.hidden_states, other.hidden_states, strict=True):
        np.testing.assert_array_equal(np.where(valid[..., None], a, 0), np.where(valid[..., None], b, 0))
    np.testing.assert_array_equal(one.pooled, other.pooled)
    assert not np.array_equal(one.hidden_states[-1], other.hidden_states[-1])


@pytest.mark.parametrize('length', [9, 12])
def test_how_much_padding_there_is_changes_nothing(length):
    run = tiny.model()
    tokens, segments = tiny.texts()
    exact = run(tokens, segments)
    pad = ((0, 0), (0, length - 9))
    valid = np.broadcast_to(np.arange(length) < 9, (2, length))
    padded = run(np.pad(tokens, pad), np.pad(segments, pad), valid)
    for a, b in zip(exact.hidden_states, padded.hidden_states, strict=True):
        np.testing.assert_allclose(a, b[:, :9], atol=2e-5)
    np.testing.assert_allclose(exact.pooled, padded.pooled, atol=2e-5)


def test_segments_matter_and_none_is_the_first():
    run = tiny.model()
    tokens, segments = tiny.texts()
    zeros = run(tokens, np.zeros_like(segments))
    np.testing.assert_array_equal(run(tokens).pooled, zeros.pooled)
    last = run(tokens, (np.arange(9) == 8).astype(np.int32) + np.zeros_like(segments))
    assert (abs(zeros.hidden_states[-1] - last.hidden_states[-1]).max(-1) > 1e-4).all()


def test_word_order_matters():
    run = tiny.model()
    tokens, _ = tiny.texts()
    swapped = tokens[:, ::-1]
    forth, back = (run(t).hidden_states[-1] for t in (tokens, swapped))
    assert abs(forth - back[:, ::-1]).max() > 1e-2


def test_rows_of_a_batch_do_not_touch():
    run = tiny.model()
    tokens, segments = tiny.texts()
    other = np.stack([tokens[0][::-1], tokens[1]])
    a, b = (run(t, segments).hidden_states[-1] for t in (tokens, other))
    np.testing.assert_array_equal(a[1], b[1])
    assert not np.array_equal(a[0], b[0])


def test_the_output_has_the_embeddings_each_layer_and_the_pooled_first_position():
    _, params = tiny.parts()
    out = tiny.model()(*tiny.texts())
    assert [h.shape for h in out.hidden_states] == [(2, 9, 32)] * 3
    first = np.asarray(out.hidden_states[-1][:, 0])
    np.testing.assert_allclose(
        out.pooled, np.tanh(first @ params['pooler/kernel'] + params['pooler/bias']), atol=1e-5
    )


def test_embeddings_are_the_normalised_sum_of_word_position_and_segment():
    tokens, segments = tiny.texts()
    found = tiny.model()(tokens, segments).hidden_states[0]
    p = {name: np.asarray(value) for name, value in tiny.parts()[1].items()}
    x = p['words'][tokens] + p['positions'][np.arange(9)] + p['segments'][segments]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    np.testing.assert_allclose(found, x * p['norm/scale'] + p['norm/bias'], atol=1e-5)


def test_a_row_longer_than_the_positions_is_refused():
    run = module.merge(*tiny.parts())
    jax.eval_shape(run, *tiny.texts(1, 40))
    with pytest.raises(UserError, match='Rows of 41 tokens are longer than the 40 positions'):
        jax.eval_shape(run, *tiny.texts(1, 41))


# Parameters with a vocabulary of 30,522 words, as counted in the published checkpoints.
@pytest.mark.parametrize(
    ('make', 'size', 'count'),
    [
        (Bert, 'tiny', 4_385_920),
        (Bert, 'mini', 11_170_560),
        (Bert, 'small', 28_763_648),
        (Bert, 'medium', 41_373_184),
        (Bert, 'base', 109_482_240),
        (Bert, 'large', 335_141_888),
        (BertForPretraining, 'base', 110_106_428),
    ],
)
def test_published_sizes_have_their_number_of_parameters(make, size, count):
    config = bert.Config(size=size, vocab_size=30_522, pad_vocab_to=1)
    _, shapes, axes = module.abstract(lambda rngs: make(config, rngs))
    assert sum(int(np.prod(s.shape)) for s in shapes.values()) == count
    assert all(isinstance(s, jax.ShapeDtypeStruct) for s in shapes.values())
    assert {name: len(a) for name, a in axes.items()} == {name: len(s.shape) for name, s in shapes.items()}


def test_a_size_fills_in_what_is_not_given():
    config = bert.Config(size='base', layers=3, vocab_size=1000)
    assert (config.layers, config.width, config.heads, config.mlp) == (3, 768, 12, 3072)
    assert config.padded_vocab == 1024
    assert bert.Config(vocab_size=1024).padded_vocab == 1024


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(size='huge'), "no BERT size 'huge'"),
        (dict(width=30), r'model\.width=30 does not divide by model\.heads=4'),
        (dict(heads=32, rotary=10_000.0), 'rotary'),
    ],
)
def test_an_impossible_shape_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tiny.config(**changes)


def test_parameters_start_as_a_truncated_normal_ones_and_zeros():
    config = tiny.config(width=128, heads=2, mlp=256, init_std=0.02)
    make = functools.partial(BertForPretraining, config)
    params = jax.jit(functools.partial(module.init, make))(jax.random.key(0))
    drawn = {}
    for name, value in params.items():
        assert value.dtype == jnp.float32
        if name.endswith('scale'):
            assert (value == 1).all()
        elif name.endswith('bias'):
            assert (value == 0).all()
        else:
            drawn[name] = np.asarray(value).reshape(-1)
    assert all(abs(w).max() <= 0.04 + 1e-6 for w in drawn.values())
    every = np.concatenate(list(drawn.values()))
    # A normal cut at two deviations keeps 0.8796 of its deviation.
    assert every.std() == pytest.approx(0.02 * 0.8796, rel=0.01)
    assert abs(every.mean()) < 1e-4
    heads = {tuple(w[:4]) for w in drawn.values()}
    assert len(heads) == len(drawn)


def test_rotary_positions_replace_learned_ones_and_have_no_end():
    graph, params = tiny.parts(rotary=100.0, positions=4)
    assert 'positions' not in params
    tokens, segments = tiny.texts()
    assert tokens.shape[1] > 4
    run = tiny.runner(graph, params)
    here, there = (run(t, segments).hidden_states[-1] for t in (tokens, np.roll(tokens, 1, axis=1)))
    assert abs(here[:, :-1] - there[:, 1:]).max() > 1e-4


def test_the_same_key_draws_the_same_parameters():
    draw = jax.jit(functools.partial(module.init, functools.partial(Bert, tiny.config(layers=1))))
    one, same, other = (draw(jax.random.key(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one['words'], other['words'])


def test_parameters_find_their_layer_whatever_their_order():
    layers = 11  # by name, layer 10 comes before layer 2
    graph, params = tiny.parts(layers=layers)
    merged = module.merge(graph, dict(reversed(params.items())))
    for i, block in enumerate(merged.layers.blocks):
        assert block.mlp.up.kernel[...] is params[f'layers/blocks/{i}/mlp/up/kernel']
    assert module.split(merged)[1].keys() == params.keys()


@pytest.mark.parametrize(
    'choices',
    [{}, {'layers': 1}, {'scan': True}, {'remat': 'full'}, {'norm': 'pre'}, {'rotary': 100.0}, tiny.T5],
)
def test_the_last_layer_where_it_is_wanted_is_the_same(choices):
    graph, params = tiny.parts(**choices)
    tokens, segments = tiny.texts()
    valid = np.arange(9)[None] < np.array([[7], [9]])
    at = np.array([[1, 4, 6], [3, 3, 8]], np.int32)
    whole, part = (tiny.runner(graph, params)(tokens, segments, valid, at=a) for a in (None, at))
    assert [h.shape[1] for h in part.hidden_states] == [9] * (len(whole.hidden_states) - 1) + [4]
    wanted = np.take_along_axis(
        np.asarray(whole.hidden_states[-1]), np.pad(at, ((0, 0), (1, 0)))[..., None], axis=1
    )
    np.testing.assert_allclose(part.hidden_states[-1], wanted, atol=1e-5)
    np.testing.assert_allclose(part.pooled, whole.pooled, atol=1e-5)


@pytest.mark.parametrize('at', [None, np.zeros((2, 3), np.int32)])
def test_block_flops_count_the_matrix_products(at):
    config = tiny.config()
    tokens, segments = tiny.texts(2, 16)
    jaxpr = jax.make_jaxpr(module.merge(*tiny.parts()))(tokens, segments, at=at).jaxpr
    flops = 0
    for eqn in tiny.equations(jaxpr):
        if eqn.primitive.name == 'dot_general':
            ((contracted, _), _), left = eqn.params['dimension_numbers'], eqn.invars[0].aval.shape
            flops += 2 * int(np.prod(eqn.outvars[0].aval.shape)) * int(np.prod([left[i] for i in contracted]))
    pooler = 2 * 2 * config.width**2
    wanted = None if at is None else 2 * (3 + 1)
    assert config.block_flops(2 * 16, 16, wanted) == flops - pooler
