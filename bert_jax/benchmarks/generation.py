"""How many tokens a second a GPT writes, beside Hugging Face transformers on the same machine.

Both sides go on greedily with the same eight prompts of 32 tokens for 128 more, float32, 50,257 words, with a
key-value cache. Ours is also told how many times as long a token takes, when the prompts are read, as reading the weights
once. Called by `speed.compare`.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

VOCAB, PROMPTS, LENGTH, NEW = 50_257, 8, 32, 128
_TURNS = 9  # of generating and of reading the weights: memory is not as fast at all times


def prompts() -> np.ndarray:
    """[B, T] random tokens."""
    return np.random.default_rng(0).integers(0, VOCAB, (PROMPTS, LENGTH), dtype=np.int32)


def time_ours(size: str, seconds: float) -> dict[str, float]:
    from bert_jax.core import runtime

    runtime.prepare_process()
    import jax

    from bert_jax.modeling import decoding, gpt, module

    config = gpt.Config(size=size, vocab_size=VOCAB)

    def make(rngs: Any) -> Any:
        return gpt.GptForCausalLM(config, rngs)

    graph = module.abstract(make)[0]
    params = jax.jit(lambda key: module.init(make, key))(jax.random.key(0))
    texts = [*prompts()]
    found = _tokens_per_second(lambda: decoding.generate(graph, params, texts, NEW, end=-1), seconds)
    tokens, valid = decoding.checked(texts, -1)
    size_read = sum(p.nbytes for p in params.values())
    turns = []
    for _ in range(_TURNS):
        state = decoding.begin(graph, params, tokens, valid, (), jax.random.key(0), LENGTH + NEW)
        jax.block_until_ready(state.scores)
        began = time.perf_counter()
        jax.block_until_ready(decoding.go_on(graph, params, state, decoding.Sampling(), -1, NEW))
        turns.append(((time.perf_counter() - began) / NEW, _seconds_to_read(size_read)))
    token, read = (statistics.median(times) for times in zip(*turns, strict=True))
    times = statistics.median(token / read for token, read in turns)
    return {**found, 'token_seconds': token, 'read_seconds': read, 'times_reading': times}


def time_theirs(size: str, seconds: float) -> dict[str, float]:
    import torch
    import transformers

    from bert_jax.modeling import gpt

    layers, width, heads = gpt.SIZES[size]
    config = transformers.GPT2Config(n_layer=layers, n_embd=width, n_head=heads, vocab_size=VOCAB)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.generation_config.pad_token_id = 0
    tokens = torch.tensor(prompts().astype(np.int64))
    options = dict(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)

    def run() -> None:
        with torch.inference_mode():
            model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)

    return _tokens_per_second(run, seconds)


def _tokens_per_second(run: Callable[[], Any], seconds: float) -> dict[str, float]:
    """After one run to warm up, as many as take `seconds`, at least one; prompts are read in this time too."""
    run()
    began, done = time.perf_counter(), 0
    while not done or time.perf_counter() - began < seconds:
        done += 1
        run()
    return {'tokens_per_second': done * PROMPTS * NEW / (time.perf_counter() - began)}


def _seconds_to_read(size: int) -> float:
    """How long it takes to read so many bytes from memory, by all cores at their best."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((max(size, 256 << 20) // 4096, 1024), jnp.float32)
    total = jax.jit(jnp.sum)
    total(x).block_until_ready()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        total(x).block_until_ready()
        times.append(time.perf_counter() - began)
    return min(times) * size / x.nbytes
