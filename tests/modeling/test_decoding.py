"""Generation: cached equals uncached, prompts of unequal length, sampling and beam search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.modeling import beam_search, decoding, module
from bert_jax.modeling.decoding import Sampling
from bert_jax.modeling.gpt import GptForCausalLM
from tests.modeling import tiny

VARIANTS = pytest.mark.parametrize(
    'variant', [{}, {**tiny.MODERN, 'kv_heads': 2}, tiny.LOCAL], ids=['gpt2', 'modern', 'local']
)
PROMPTS = [np.array([7, 8, 9, 10, 11]), np.array([50]), np.array([20, 21, 22])]
NEVER = -1


def greedy_without_cache(graph, params, prompt, length):
    """Greedy generation that runs the model on all tokens for each new one; rows are padded, to compile once."""
    run, n = tiny.runner(graph, params), len(prompt)
    tokens = np.zeros((1, 20), np.int32)
    tokens[0, :n] = prompt
    for i in range(n, n + length):
        tokens[0, i] = np.argmax(run(tokens).logits[0, i - 1])
    return tokens[0, n : n + length].tolist()


@VARIANTS
def test_greedy_generation_equals_repeated_argmax_without_cache(variant):
    graph, params = tiny.graph_and_params(GptForCausalLM, **variant)
    generated = decoding.generate(graph, params, PROMPTS, 12, end=NEVER)
    expected = [greedy_without_cache(graph, params, p, 12) for p in PROMPTS]
    assert [row.tolist() for row in generated] == expected


@VARIANTS
def test_cached_logits_equal_uncached_ones(variant):
    graph, params = tiny.graph_and_params(GptForCausalLM, **variant)
    tokens = np.array([[7, 8, 9, 10, 11, 12]], np.int32)
    full = tiny.runner(graph, params)(tokens).logits[0]
    cache = module.merge(graph, params).init_cache(1, 6)

    @jax.jit
    def extend(token, i, cache):
        mask = (jnp.arange(6) <= i)[None, None, None]
        return module.merge(graph, params).extend(token, mask, i[None, None], cache, i)

    for i in range(6):
        logits, cache = extend(tokens[:, i : i + 1], jnp.int32(i), cache)
        np.testing.assert_allclose(logits[0], full[i], atol=2e-5)


def test_streamed_chunks_equal_generation_at_once():
    graph, params = tiny.graph_and_params(GptForCausalLM)
    at_once = decoding.generate(graph, params, PROMPTS, 10, end=NEVER, sampling=Sampling(1.0), seed=3)
    chunks = [
        *decoding.stream(graph, params, PROMPTS, 10, end=NEVER, sampling=Sampling(1.0), seed=3, chunk=4)
    ]
    assert [c.shape for c in chunks] == [(3, 4), (3, 4), (3, 2)]
    np.testing.assert_array_equal(np.concatenate(chunks, 1), at_once)


def test_rows_end_independently():
    graph, params = tiny.graph_and_params(GptForCausalLM)
    endless = decoding.generate(graph, params, PROMPTS, 12, end=NEVER)
    end = int(endless[0][4])
    generated = decoding.generate(graph, params, PROMPTS, 12, end=end)
    assert [row.tolist() for row in generated] == [decoding.truncate(row, end).tolist() for row in endless]
    assert len(generated[0]) < 12


LOGITS = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3]]))


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
def test_samples_follow_the_probabilities(sampling, expected):
    n = 20_000
    samples = decoding.sample(jnp.repeat(LOGITS, n, 0), sampling, jax.random.key(0))
    frequencies = np.bincount(samples, minlength=4) / n
    np.testing.assert_allclose(frequencies, expected, atol=0.012)
    assert (frequencies[np.array(expected) == 0] == 0).all()


@pytest.mark.parametrize(
    ('prompts', 'length', 'message'),
    [
        ([], 3, 'prompt is empty'),
        ([np.array([], int)], 3, 'prompt is empty'),
        (PROMPTS, 36, '40 positions'),
    ],
)
def test_impossible_prompts_are_rejected(prompts, length, message):
    with pytest.raises(UserError, match=message):
        decoding.generate(*tiny.graph_and_params(GptForCausalLM), prompts, length, end=NEVER)


@pytest.mark.parametrize('settings', [{'temperature': -1.0}, {'top_k': -1}, {'top_p': 0.0}])
def test_sampling_settings_out_of_range_are_rejected(settings):
    with pytest.raises(UserError, match='out of range. Set temperature and top_k'):
        Sampling(**settings)


def log_probabilities(run, tokens):
    """[n, V] log-probabilities of the token after each of n rows."""
    return np.asarray(jax.nn.log_softmax(run(np.array(tokens, np.int32)).logits[:, -1]))


@pytest.mark.parametrize('penalty', [0.0, 1.0, 3.0])
def test_beam_search_with_all_beams_finds_the_global_optimum(penalty):
    graph, params = tiny.graph_and_params(GptForCausalLM)
    run, end = tiny.runner(graph, params), 42
    prompt = [7, 8, 9]
    first = log_probabilities(run, [prompt])[0]
    second = log_probabilities(run, [[*prompt, t] for t in range(tiny.VOCAB)])
    scores = {
        (t, u): (first[t] + second[t, u]) / 2**penalty for t in range(tiny.VOCAB) for u in range(tiny.VOCAB)
    }
    scores = {k: v for k, v in scores.items() if k[0] != end} | {(end,): first[end]}
    best = max(scores, key=scores.__getitem__)
    (searched,) = beam_search.search(
        graph, params, [np.array(prompt)], 2, end=end, num_beams=tiny.VOCAB, length_penalty=penalty
    )
    assert searched.tolist() == [t for t in best if t != end]


def test_one_beam_equals_greedy_generation():
    graph, params = tiny.graph_and_params(GptForCausalLM)
    searched = beam_search.search(graph, params, PROMPTS, 9, end=NEVER, num_beams=1)
    greedy = decoding.generate(graph, params, PROMPTS, 9, end=NEVER)
    assert [r.tolist() for r in searched] == [r.tolist() for r in greedy]


@pytest.mark.parametrize('vocabulary', [1, 7, 256, 257, 1000])
def test_argmax_returns_the_first_maximum(vocabulary):
    scores = np.random.default_rng(0).integers(0, 9, (5, vocabulary)).astype(np.float32)
    scores[1] = -np.inf
    np.testing.assert_array_equal(decoding.argmax(scores), scores.argmax(-1))
