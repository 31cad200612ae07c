"""Generation: cached equals uncached, prompts of unequal length, and what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import beam_search, decoding, module
from bert_jax.modeling.decoding import Sampling
from bert_jax.modeling.gpt import GptForCausalLM
from tests.modeling import tiny

VARIANTS = pytest.mark.parametrize('variant', [{}, {**tiny.MODERN, 'kv_heads': 2}], ids=['gpt2', 'modern'])
PROMPTS = [np.array([7, 8, 9, 10, 11]), np.array([50]), np.array([20, 21, 22])]
NEVER = -1


def by_hand(graph, params, prompt, length):
    """The likeliest token, again and again, with all tokens read anew each time."""
    run, tokens = tiny.runner(graph, params), [*prompt]
    for _ in range(length):
        tokens.append(int(np.argmax(run(np.array([tokens], np.int32)).logits[0, -1])))
    return tokens[len(prompt) :]


@VARIANTS
def test_greedy_is_the_likeliest_token_again_and_again(variant):
    graph, params = tiny.parts(GptForCausalLM, **variant)
    made = decoding.generate(graph, params, PROMPTS, 12, end=NEVER)
    assert [row.tolist() for row in made] == [by_hand(graph, params, p, 12) for p in PROMPTS]


@VARIANTS
def test_cached_scores_equal_uncached(variant):
    graph, params = tiny.parts(GptForCausalLM, **variant)
    model, tokens = module.merge(graph, params), np.array([[7, 8, 9, 10, 11, 12]], np.int32)
    whole = model(tokens).logits[0]
    cache = model.empty_cache(1, 6)
    for i in range(6):
        mask = (jnp.arange(6) <= i)[None, None, None]
        scores, cache = model.extend(tokens[:, i : i + 1], mask, jnp.array([[i]]), cache, jnp.int32(i))
        np.testing.assert_allclose(scores[0], whole[i], atol=2e-5)


def test_streams_are_what_is_generated_at_once():
    graph, params = tiny.parts(GptForCausalLM)
    at_once = decoding.generate(graph, params, PROMPTS, 10, end=NEVER, sampling=Sampling(1.0), seed=3)
    parts = [*decoding.stream(graph, params, PROMPTS, 10, end=NEVER, sampling=Sampling(1.0), seed=3, every=4)]
    assert [p.shape for p in parts] == [(3, 4), (3, 4), (3, 2)]
    np.testing.assert_array_equal(np.concatenate(parts, 1), at_once)


def test_a_row_ends_at_the_end_and_the_others_go_on():
    graph, params = tiny.parts(GptForCausalLM)
    free = decoding.generate(graph, params, PROMPTS, 12, end=NEVER)
    end = int(free[0][4])
    first = [next((i for i, t in enumerate(row) if t == end), len(row)) for row in free]
    made = decoding.generate(graph, params, PROMPTS, 12, end=end)
    assert [row.tolist() for row in made] == [row[:i].tolist() for row, i in zip(free, first, strict=True)]
    assert len(made[0]) < 12


SCORES = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3]]))


@pytest.mark.parametrize(
    ('sampling', 'expected'),
    [
        (Sampling(1.0), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(1.0, top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(1.0, top_p=0.5), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(1.0, top_p=0.9), [0, 4 / 9, 2 / 9, 3 / 9]),
        (Sampling(1.0, top_p=0.01), [0, 1, 0, 0]),
        (Sampling(0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (Sampling(0), [0, 1, 0, 0]),
    ],
)
def test_what_is_drawn_follows_the_probabilities(sampling, expected):
    n = 20_000
    drawn = decoding.choose(jnp.repeat(SCORES, n, 0), sampling, jax.random.key(0))
    found = np.bincount(drawn, minlength=4) / n
    np.testing.assert_allclose(found, expected, atol=0.012)
    assert (found[np.array(expected) == 0] == 0).all()


@pytest.mark.parametrize(
    ('prompts', 'length', 'message'),
    [
        ([], 3, 'nothing to go on'),
        ([np.array([], int)], 3, 'nothing to go on'),
        (PROMPTS, 36, '40 positions'),
    ],
)
def test_what_cannot_be_generated_is_said(prompts, length, message):
    with pytest.raises(UserError, match=message):
        decoding.generate(*tiny.parts(GptForCausalLM), prompts, length, end=NEVER)


@pytest.mark.parametrize('settings', [{'temperature': -1.0}, {'top_k': -1}, {'top_p': 0.0}])
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(UserError, match='temperature and top_k'):
        Sampling(**settings)


def log_probabilities(run, tokens):
    """[n, V] of what follows each of n rows."""
    return np.asarray(jax.nn.log_softmax(run(np.array(tokens, np.int32)).logits[:, -1]))


@pytest.mark.parametrize('penalty', [0.0, 1.0, 3.0])
def test_a_search_with_enough_beams_finds_the_likeliest_of_all(penalty):
    graph, params = tiny.parts(GptForCausalLM)
    run, end = tiny.runner(graph, params), 42
    prompt = [7, 8, 9]
    first = log_probabilities(run, [prompt])[0]
    second = log_probabilities(run, [[*prompt, t] for t in range(tiny.VOCAB)])
    values = {
        (t, u): (first[t] + second[t, u]) / 2**penalty for t in range(tiny.VOCAB) for u in range(tiny.VOCAB)
    }
    values = {k: v for k, v in values.items() if k[0] != end} | {(end,): first[end]}
    best = max(values, key=values.__getitem__)
    (found,) = beam_search.search(
        graph, params, [np.array(prompt)], 2, end=end, beams=tiny.VOCAB, length_penalty=penalty
    )
    assert found.tolist() == [t for t in best if t != end]


def test_one_beam_is_greedy():
    graph, params = tiny.parts(GptForCausalLM)
    one = beam_search.search(graph, params, PROMPTS, 9, end=NEVER, beams=1)
    greedy = decoding.generate(graph, params, PROMPTS, 9, end=NEVER)
    assert [r.tolist() for r in one] == [r.tolist() for r in greedy]


@pytest.mark.parametrize('vocabulary', [1, 7, 256, 257, 1000])
def test_the_likeliest_is_the_first_of_the_highest(vocabulary):
    scores = np.random.default_rng(0).integers(0, 9, (5, vocabulary)).astype(np.float32)
    scores[1] = -np.inf
    np.testing.assert_array_equal(decoding.likeliest(scores), scores.argmax(-1))
