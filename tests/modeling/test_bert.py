"""BERT: attention patterns, padding, embeddings, sizes and initial parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import bert, module
from bert_jax.modeling.bert import Bert, BertForPretraining
from bert_jax.train.flops import matmul_flops
from tests.modeling import tiny

VARIANTS = pytest.mark.parametrize(
    'variant',
    [{}, tiny.MODERN, tiny.LOCAL, tiny.MPNET, tiny.NOMIC, tiny.ALBERT],
    ids=['bert', 'modern', 'local', 'mpnet', 'nomic', 'albert'],
)


@VARIANTS
def test_tokens_attend_in_both_directions_but_not_to_padding(variant):
    tokens, segments = tiny.tokens_and_segments(1, 9)
    valid = np.arange(9)[None] < 6
    influence = tiny.influence(*tiny.graph_and_params(**variant), tokens, segments, valid)
    assert (influence[:6, :6] > 1e-4).all()
    assert (influence[:6, 6:] == 0).all()


@VARIANTS
def test_documents_of_a_packed_row_attend_to_themselves_only(variant):
    tokens, segments = tiny.tokens_and_segments(1, 9)
    documents = np.array([1, 1, 1, 1, 2, 2, 2, 0, 0], np.int32)
    influence = tiny.influence(*tiny.graph_and_params(**variant), tokens, segments, documents[None])
    is_real = documents != 0
    same = (documents[:, None] == documents[None]) & is_real
    assert (influence[same] > 1e-4).all()
    assert (influence[is_real][~same[is_real]] == 0).all()


@VARIANTS
def test_a_packed_row_equals_its_documents_in_separate_rows(variant):
    graph, params = tiny.graph_and_params(**variant)
    no_positions = {k: jnp.zeros_like(v) if k == 'position_embedding' else v for k, v in params.items()}
    run = tiny.runner(graph, no_positions)
    tokens, segments = tiny.tokens_and_segments(1, 9)
    packed = run(tokens, segments, np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]])).hidden_states
    for start, stop in ((0, 4), (4, 7)):
        separate = run(tokens[:, start:stop], segments[:, start:stop]).hidden_states
        for a, b in zip(packed, separate, strict=True):
            np.testing.assert_allclose(a[:, start:stop], b, atol=2e-5)
    assert np.isfinite(packed[-1]).all()


def test_token_ids_of_padding_change_nothing():
    run = tiny.model()
    tokens, segments = tiny.tokens_and_segments(2, 12)
    valid = np.arange(12)[None] < np.array([[7], [9]])
    one = run(np.where(valid, tokens, 0), np.where(valid, segments, 0), valid)
    other = run(np.where(valid, tokens, 77), np.where(valid, segments, 1), valid)
    for a, b in zip(one.hidden_states, other.hidden_states, strict=True):
        np.testing.assert_array_equal(np.where(valid[..., None], a, 0), np.where(valid[..., None], b, 0))
    np.testing.assert_array_equal(one.pooled, other.pooled)
    assert not np.array_equal(one.hidden_states[-1], other.hidden_states[-1])


@pytest.mark.parametrize('length', [9, 12])
def test_the_amount_of_padding_changes_nothing(length):
    run = tiny.model()
    tokens, segments = tiny.tokens_and_segments()
    exact = run(tokens, segments)
    pad = ((0, 0), (0, length - 9))
    valid = np.broadcast_to(np.arange(length) < 9, (2, length))
    padded = run(np.pad(tokens, pad), np.pad(segments, pad), valid)
    for a, b in zip(exact.hidden_states, padded.hidden_states, strict=True):
        np.testing.assert_allclose(a, b[:, :9], atol=2e-5)
    np.testing.assert_allclose(exact.pooled, padded.pooled, atol=2e-5)


def test_segments_change_hidden_states_and_default_to_zero():
    run = tiny.model()
    tokens, segments = tiny.tokens_and_segments()
    zeros = run(tokens, np.zeros_like(segments))
    np.testing.assert_array_equal(run(tokens).pooled, zeros.pooled)
    last = run(tokens, (np.arange(9) == 8).astype(np.int32) + np.zeros_like(segments))
    assert (abs(zeros.hidden_states[-1] - last.hidden_states[-1]).max(-1) > 1e-4).all()


def test_hidden_states_depend_on_word_order():
    run = tiny.model()
    tokens, _ = tiny.tokens_and_segments()
    forward, backward = (run(t).hidden_states[-1] for t in (tokens, tokens[:, ::-1]))
    assert abs(forward - backward[:, ::-1]).max() > 1e-2


def test_rows_of_a_batch_are_independent():
    run = tiny.model()
    tokens, segments = tiny.tokens_and_segments()
    other = np.stack([tokens[0][::-1], tokens[1]])
    a, b = (run(t, segments).hidden_states[-1] for t in (tokens, other))
    np.testing.assert_array_equal(a[1], b[1])
    assert not np.array_equal(a[0], b[0])


def test_output_has_embeddings_every_layer_and_the_pooled_first_position():
    _, params = tiny.graph_and_params()
    out = tiny.model()(*tiny.tokens_and_segments())
    assert [h.shape for h in out.hidden_states] == [(2, 9, 32)] * 3
    first = np.asarray(out.hidden_states[-1][:, 0])
    np.testing.assert_allclose(
        out.pooled, np.tanh(first @ params['pooler/kernel'] + params['pooler/bias']), atol=1e-5
    )


def test_embeddings_are_the_normalized_sum_of_token_position_and_segment():
    tokens, segments = tiny.tokens_and_segments()
    embeddings = tiny.model()(tokens, segments).hidden_states[0]
    p = {name: np.asarray(value) for name, value in tiny.graph_and_params()[1].items()}
    x = (
        p['token_embedding'][tokens]
        + p['position_embedding'][np.arange(9)]
        + p['segment_embedding'][segments]
    )
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    expected = x * p['embedding_norm/scale'] + p['embedding_norm/bias']
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_rows_longer_than_the_positions_are_rejected():
    run = module.merge(*tiny.graph_and_params())
    jax.eval_shape(run, *tiny.tokens_and_segments(1, 40))
    with pytest.raises(UserError, match='Rows of 41 tokens are longer than the 40 positions'):
        jax.eval_shape(run, *tiny.tokens_and_segments(1, 41))


# Numbers of parameters of the published checkpoints, with a vocabulary of 30,522 entries.
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
    config = bert.Config(size=size, vocab_size=30_522, pad_vocab_multiple=1)
    _, shapes, axes = module.abstract(lambda rngs: make(config, rngs))
    assert sum(int(np.prod(s.shape)) for s in shapes.values()) == count
    assert all(isinstance(s, jax.ShapeDtypeStruct) for s in shapes.values())
    assert {name: len(a) for name, a in axes.items()} == {name: len(s.shape) for name, s in shapes.items()}


def test_size_sets_only_fields_that_are_zero():
    config = bert.Config(size='base', layers=3, vocab_size=1000)
    assert (config.layers, config.width, config.heads, config.mlp_width) == (3, 768, 12, 3072)
    assert config.padded_vocab == 1024
    assert bert.Config(vocab_size=1024).padded_vocab == 1024


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(size='huge'), "model.size='huge' is not a size of BERT"),
        (dict(width=30), r'model\.width=30 is not divisible by model\.heads=4'),
        (dict(heads=32, rope_base=10_000.0), 'model.rope_base=10000 needs an even head width'),
    ],
)
def test_impossible_shapes_are_rejected(changes, message):
    with pytest.raises(UserError, match=message):
        tiny.config(**changes)


def test_initial_parameters_are_truncated_normal_ones_or_zeros():
    config = tiny.config(width=128, heads=2, mlp_width=256, init_std=0.02)
    make = functools.partial(BertForPretraining, config)
    params = jax.jit(functools.partial(module.init, make))(jax.random.key(0))
    random = {}
    for name, value in params.items():
        assert value.dtype == jnp.float32
        if name.endswith('scale'):
            assert (value == 1).all()
        elif name.endswith('bias'):
            assert (value == 0).all()
        else:
            random[name] = np.asarray(value).reshape(-1)
    assert all(abs(w).max() <= 0.04 + 1e-6 for w in random.values())
    all_values = np.concatenate(list(random.values()))
    # Truncation at two deviations leaves 0.8796 of the standard deviation.
    assert all_values.std() == pytest.approx(0.02 * 0.8796, rel=0.01)
    assert abs(all_values.mean()) < 1e-4
    beginnings = {tuple(w[:4]) for w in random.values()}
    assert len(beginnings) == len(random)


def test_rotary_positions_replace_learned_ones_without_a_length_limit():
    graph, params = tiny.graph_and_params(rope_base=100.0, max_positions=4)
    assert 'position_embedding' not in params
    tokens, segments = tiny.tokens_and_segments()
    assert tokens.shape[1] > 4
    run = tiny.runner(graph, params)
    rolled = np.roll(tokens, 1, axis=1)
    before, after = (run(t, segments).hidden_states[-1] for t in (tokens, rolled))
    assert abs(before[:, :-1] - after[:, 1:]).max() > 1e-4


def test_the_same_key_gives_the_same_parameters():
    init = jax.jit(functools.partial(module.init, functools.partial(Bert, tiny.config(layers=1))))
    one, same, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one['token_embedding'], other['token_embedding'])


def test_merge_does_not_depend_on_the_order_of_parameters():
    layers = 11  # sorted by name, layer 10 comes before layer 2
    graph, params = tiny.graph_and_params(layers=layers)
    merged = module.merge(graph, dict(reversed(params.items())))
    for i, block in enumerate(merged.layers.blocks):
        assert block.mlp.up.kernel[...] is params[f'layers/blocks/{i}/mlp/up/kernel']
    assert module.split(merged)[1].keys() == params.keys()


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'layers': 1},
        {'scan_layers': True, 'layers': 4},
        {'remat': 'full'},
        {'norm_placement': 'pre'},
        {'rope_base': 100.0},
        tiny.T5,
        tiny.LOCAL,
        tiny.MPNET,
        tiny.NOMIC,
        tiny.ALBERT,
        {'pooling': 'mean'},
        tiny.EUROBERT,
        tiny.DEBERTA,
        tiny.DEBERTA | {'scan_layers': True, 'layers': 4, 'remat': 'full'},
    ],
)
def test_output_positions_equal_those_of_the_full_output(settings):
    graph, params = tiny.graph_and_params(**settings)
    tokens, segments = tiny.tokens_and_segments()
    valid = np.arange(9)[None] < np.array([[7], [9]])
    positions = np.array([[1, 4, 6], [3, 3, 8]], np.int32)
    run = tiny.runner(graph, params)
    full, partial = (run(tokens, segments, valid, output_positions=p) for p in (None, positions))
    assert [h.shape[1] for h in partial.hidden_states] == [9] * (len(full.hidden_states) - 1) + [4]
    positions = np.pad(positions, ((0, 0), (1, 0)))[..., None]
    expected = np.take_along_axis(np.asarray(full.hidden_states[-1]), positions, axis=1)
    np.testing.assert_allclose(partial.hidden_states[-1], expected, atol=1e-5)
    np.testing.assert_allclose(partial.pooled, full.pooled, atol=1e-5)


def test_mean_pooling_ignores_padding():
    tokens, segments = tiny.tokens_and_segments(1, 9)
    valid = np.arange(9)[None] < 6
    run = tiny.model(pooling='mean', prediction_head=True)
    padded, cut = run(tokens, segments, valid), run(tokens[:, :6], segments[:, :6])
    np.testing.assert_allclose(padded.pooled, cut.pooled, atol=1e-5)
    params = tiny.graph_and_params(pooling='mean', prediction_head=True)[1]
    mean = np.asarray(cut.hidden_states[-1]).mean(1)
    x = jax.nn.gelu(mean @ params['pooler/dense/kernel'] + params['pooler/dense/bias'], approximate=False)
    x = np.asarray((x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True))
    expected = x * params['pooler/norm/scale'] + params['pooler/norm/bias']
    np.testing.assert_allclose(cut.pooled, expected, atol=1e-5)


def test_local_layers_count_the_operations_of_their_window():
    config = tiny.config(**tiny.LOCAL)
    everywhere = tiny.config(**{**tiny.LOCAL, 'window': 0})
    saved = 2 * 4 * 600 * (300 - 7) * config.width  # two local layers, 300 tokens in a row
    assert everywhere.block_flops(600, 300) - config.block_flops(600, 300) == saved


@VARIANTS
@pytest.mark.parametrize('output_positions', [None, np.zeros((2, 3), np.int32)])
def test_block_flops_equal_those_of_the_matrix_products(output_positions, variant):
    variant = variant | {'prediction_head': False, 'window': 0}  # local attention computes more than it needs
    config = tiny.config(**variant)
    tokens, segments = tiny.tokens_and_segments(2, 16)
    model = module.merge(*tiny.graph_and_params(**variant))
    jaxpr = jax.make_jaxpr(model)(tokens, segments, output_positions=output_positions).jaxpr
    pooler = 2 * 2 * config.width**2
    output_tokens = None if output_positions is None else 2 * (3 + 1)
    assert config.block_flops(2 * 16, 16, output_tokens) == matmul_flops(jaxpr) - pooler


def test_embeddings_are_projected_after_their_norm():
    _, params = tiny.graph_and_params(embedding_width=20)
    tokens, segments = tiny.tokens_and_segments()
    x = params['token_embedding'][tokens] + params['segment_embedding'][segments]
    x = x + params['position_embedding'][: tokens.shape[1]]
    assert x.shape[-1] == 20
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    x = x * params['embedding_norm/scale'] + params['embedding_norm/bias']
    expected = x @ params['embedding_projection/kernel'] + params['embedding_projection/bias']
    hidden = tiny.model(embedding_width=20)(tokens, segments).hidden_states[0]
    np.testing.assert_allclose(hidden, expected, atol=1e-5)


@pytest.mark.parametrize(
    ('layers', 'groups', 'blocks'),
    [(5, 1, [0] * 5), (4, 2, [0, 0, 2, 2]), (5, 2, [0, 0, 0, 3, 3]), (3, 3, [0, 1, 2]), (3, 0, [0, 1, 2])],
)
def test_layers_of_a_group_share_their_parameters(layers, groups, blocks):
    config = tiny.config(layers=layers, layer_groups=groups)
    assert [config.first_shared_layer(i) for i in range(layers)] == blocks
    graph, params = tiny.graph_and_params(layers=layers, layer_groups=groups)
    assert {int(name.split('/')[2]) for name in params if 'blocks/' in name} == {*blocks}
    separate = tiny.graph_and_params(layers=layers)[0]
    tokens, segments = tiny.tokens_and_segments()
    copies = {**params}
    for i, first in enumerate(blocks):
        for name in [name for name in params if f'blocks/{first}/' in name]:
            copies[name.replace(f'blocks/{first}/', f'blocks/{i}/')] = params[name]
    shared, copied = (
        tiny.runner(g, p)(tokens, segments).hidden_states for g, p in ((graph, params), (separate, copies))
    )
    for a, b in zip(shared, copied, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    'changes', [{'scan_layers': True}, {'window': 3}, {'norm_placement': 'pre', 'first_norm': False}]
)
def test_shared_layers_must_be_equal_and_unstacked(changes):
    with pytest.raises(UserError, match='model.layer_groups=1 shares the parameters of layers'):
        tiny.config(layer_groups=1, **changes)


def test_learned_positions_limit_the_length():
    assert tiny.config(**tiny.MPNET).longest_row == 40
    assert 'position_embedding' in tiny.graph_and_params(**tiny.MPNET)[1]
    assert 'position_embedding' not in tiny.graph_and_params(**tiny.NOMIC)[1]


def test_only_heads_have_a_bias_with_head_bias():
    names = tiny.graph_and_params(BertForPretraining, **tiny.NOMIC)[1]
    biased = {name for name in names if name.endswith('/bias') and 'norm' not in name}
    assert biased == {'bert/pooler/bias', 'masked_lm/dense/bias', 'masked_lm/bias'}
