"""Benchmark GPT generation, in tokens per second, against Hugging Face transformers on the same machine.

Both libraries greedily generate 128 tokens after each of the same eight prompts of 32 tokens, in float32, with a vocabulary
of 50,257 and a key-value cache. For bert_jax, the time per decoding step is also compared with its lower bound, the time to
read the weights from memory once. Called by `pretraining.compare`.
"""

import functools
import statistics
import time
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from bert_jax.benchmarks.pretraining import runs_per_second

VOCAB, PROMPTS, LENGTH, NEW = 50_257, 8, 32, 128
_REPEATS = 9  # generation and reading of the weights alternate, as the memory speed varies


def make_prompts() -> np.ndarray:
    """Make random prompts [B, T]."""
    return np.random.default_rng(0).integers(0, VOCAB, (PROMPTS, LENGTH), dtype=np.int32)


def time_bert_jax(size: str, seconds: float) -> dict[str, float]:
    """Time generation by bert_jax for about `seconds`.

    Also compare the time of a decoding step with the time to read the weights from memory once.
    """
    from bert_jax.core import runtime

    runtime.configure_process()
    import jax

    from bert_jax.modeling import decoding, gpt, module

    make = functools.partial(gpt.GptForCausalLM, gpt.Config(size=size, vocab_size=VOCAB))
    graph, params = module.split(make(module.Rngs(0)))
    texts = [*make_prompts()]
    rate = _tokens_per_second(lambda _: decoding.generate(graph, params, texts, NEW, end=-1), seconds)
    tokens, valid = decoding.left_pad(texts, -1)
    weight_bytes = sum(p.nbytes for p in params.values())
    timings = []
    for _ in range(_REPEATS):
        state = decoding.prefill(graph, params, tokens, valid, (), jax.random.key(0), LENGTH + NEW)
        jax.block_until_ready(state.logits)
        start = time.perf_counter()
        jax.block_until_ready(decoding.decode(graph, params, state, decoding.Sampling(), -1, NEW))
        timings.append(((time.perf_counter() - start) / NEW, _seconds_to_read(weight_bytes)))
    token, read = (statistics.median(times) for times in zip(*timings, strict=True))
    ratio = statistics.median(token / read for token, read in timings)
    return {**rate, 'token_seconds': token, 'read_seconds': read, 'token_to_read_ratio': ratio}


def time_transformers(size: str, seconds: float) -> dict[str, float]:
    """Time generation by Hugging Face transformers for about `seconds`."""
    import torch
    import transformers

    from bert_jax.modeling import gpt

    layers, width, heads = gpt.SIZES[size]
    config = transformers.GPT2Config(n_layer=layers, n_embd=width, n_head=heads, vocab_size=VOCAB)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.generation_config.pad_token_id = 0
    tokens = torch.tensor(make_prompts().astype(np.int64))
    options = dict(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)

    def run(_: int) -> None:
        with torch.inference_mode():
            model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)

    return _tokens_per_second(run, seconds)


def _tokens_per_second(run: Callable[[int], Any], seconds: float) -> dict[str, float]:
    """Measure tokens per second, the prefill included."""
    return {'tokens_per_second': PROMPTS * NEW * runs_per_second(run, seconds)}


def _seconds_to_read(size: int) -> float:
    """Measure the minimum time in which all cores read `size` bytes from memory."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((max(size, 256 << 20) // 4096, 1024), jnp.float32)
    total = jax.jit(jnp.sum)
    fastest = min(timeit.repeat(lambda: total(x).block_until_ready(), number=1, repeat=6))
    return fastest * size / x.nbytes
