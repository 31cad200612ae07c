"""Benchmark GPT generation in float32, in tokens per second, against PyTorch on the same machine.

All programs greedily generate 128 tokens after each of the same eight prompts of 32 tokens, with a vocabulary of 50,257
and a key-value cache. For bert_jax, the time per decoding step is also compared with its lower bound, the time to read the
weights from memory once. Called by `comparison.compare`.
"""

import functools
import statistics
import time
import timeit
from collections.abc import Callable
from typing import Any

import numpy as np

from bert_jax.benchmarks import pytorch
from bert_jax.benchmarks.timing import runs_per_second
from bert_jax.modeling.gpt import SIZES

RATE = 'tokens_per_second'
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


def format_details(result: dict[str, float]) -> str:
    """Compare the time of a decoding step of bert_jax with its lower bound."""
    token, read = (1e3 * result[key] for key in ('token_seconds', 'read_seconds'))
    return (
        f'a decoding step for all prompts takes {token:.1f} ms, reading the weights {read:.1f} ms; '
        f'median ratio {result["token_to_read_ratio"]:.2f}'
    )


def time_transformers(size: str, seconds: float) -> dict[str, float]:
    """Time generation as transformers documents it, for about `seconds`."""
    import torch

    model, tokens = _make_gpt(size)
    options = dict(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)

    def run(_: int) -> None:
        with torch.inference_mode():
            model.generate(tokens, attention_mask=torch.ones_like(tokens), **options)

    return _tokens_per_second(run, seconds)


def time_tuned_pytorch(size: str, seconds: float) -> dict[str, float]:
    """Time generation by a loop over a static cache, for about `seconds`."""
    import torch
    import transformers

    def measure(compile: Any) -> float:
        model, tokens = _make_gpt(size)
        cache = transformers.StaticCache(model.config, max_cache_len=LENGTH + NEW)

        @compile
        def next_tokens(tokens: Any, positions: Any) -> Any:
            out = model(
                tokens,
                past_key_values=cache,
                cache_position=positions,
                position_ids=positions[None],
                logits_to_keep=1,
            )
            return out.logits.argmax(-1)

        def run(_: int) -> None:
            with torch.no_grad():
                cache.reset()
                last = next_tokens(tokens, torch.arange(LENGTH))
                for position in torch.arange(LENGTH, LENGTH + NEW - 1).split(1):
                    last = next_tokens(last, position)

        return _tokens_per_second(run, seconds)[RATE]

    best = pytorch.highest_rate(measure)
    return {RATE: best['rate'], 'compiled': best['compiled']}


def _make_gpt(size: str) -> tuple[Any, Any]:
    """Build a GPT-2 of transformers, and the prompts."""
    import torch
    import transformers

    layers, width, heads = SIZES[size]
    config = transformers.GPT2Config(n_layer=layers, n_embd=width, n_head=heads, vocab_size=VOCAB)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.generation_config.pad_token_id = 0
    return model, torch.tensor(make_prompts().astype(np.int64))


def _tokens_per_second(run: Callable[[int], Any], seconds: float) -> dict[str, float]:
    """Measure tokens per second, the prefill included."""
    return {RATE: PROMPTS * NEW * runs_per_second(run, seconds)}


def _seconds_to_read(size: int) -> float:
    """Measure the minimum time in which all cores read `size` bytes from memory."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((max(size, 256 << 20) // 4096, 1024), jnp.float32)
    total = jax.jit(jnp.sum)
    fastest = min(timeit.repeat(lambda: total(x).block_until_ready(), number=1, repeat=6))
    return fastest * size / x.nbytes
