"""Time a train step of BERT in PyTorch on one device, at a fixed batch. Called in processes by `throughput`."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from bert_jax.benchmarks import masked_rows, pytorch
from bert_jax.benchmarks.timing import time_steps
from bert_jax.core.errors import first_line

# Ways to compute attention, by kind of rows.
_VARIANTS = {
    'full': ('sdpa', 'sdpa with cuDNN'),
    'padded': ('without padding', 'sdpa with a mask'),
    'packed': ('without padding', 'sdpa with a mask'),
}


def time_transformers(case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Time a train step as the `Trainer` of transformers runs it: all logits, a mask for padding, fused AdamW.

    Args:
      case: fields of a `throughput.Case`.

    Yields:
      As `throughput_jax.time_bert_jax`, except the time of the first step.
    """
    import torch

    device = _set_up(case)
    model, optimizer = _make_model(case, 'sdpa')
    batch = masked_rows.make_batch(case['kind'], case['rows'], case['length'])
    labels = np.full(batch['tokens'].shape, -100)
    row, column = _predicted(batch)
    labels[row, column] = batch['tokens'][row, column]
    inputs = {'input_ids': batch['tokens'], 'attention_mask': batch['valid'], 'labels': labels}
    inputs = {name: torch.tensor(x.astype(np.int64), device=device) for name, x in inputs.items()}

    def compute_loss() -> Any:
        with _autocast(case):
            return model(**inputs).loss

    yield _time(case, compute_loss, model, optimizer)


def time_tuned_pytorch(case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Time a train step that computes only what the loss needs.

    Only the predicted positions go through the vocabulary head, attention skips padding and other texts, AdamW is fused.
    Of the ways to compute attention, the fastest is timed again with `torch.compile`.

    Args:
      case: fields of a `throughput.Case`.

    Yields:
      As `time_transformers`, with `variant`, which says how attention was computed and whether the step was compiled,
      and `failed`, the errors of the other variants: the best without `torch.compile`, then the best of all.
    """
    import torch

    _set_up(case)
    best: dict[str, Any] | None = None
    failures = {}
    for variant in _VARIANTS[case['kind']]:
        _free_memory()
        try:
            result = {**_time(case, *_make_tuned(case, variant)), 'variant': variant}
        except Exception as e:  # this version or device lacks the kernel, or memory is full
            failures[variant] = e.with_traceback(None)  # whose frames hold the model
            continue
        if best is None or result['step_seconds'] < best['step_seconds']:
            best = result
    notes: dict[str, Any] = {
        'failed': {variant: f'{type(e).__name__}: {first_line(e)}' for variant, e in failures.items()}
    }
    if best is None:
        raise [*failures.values()][-1]
    yield best | notes
    _free_memory()
    variant = best['variant']
    compute_loss, model, optimizer = _make_tuned(case, variant)
    compiled = {
        **_time(case, torch.compile(compute_loss), model, optimizer),
        'variant': f'{variant}, compiled',
    }
    notes['compiled_step_seconds'] = compiled['step_seconds']
    yield min(best, compiled, key=lambda result: result['step_seconds']) | notes


def _set_up(case: Mapping[str, Any]) -> str:
    """Set the precision of float32 products, and return the device of PyTorch.

    Raises:
      RuntimeError: if PyTorch does not support the device.
    """
    import torch

    torch.set_float32_matmul_precision('high')
    torch.manual_seed(0)
    if case['platform'] == 'cpu':
        return 'cpu'
    if case['platform'] != 'gpu' or not torch.cuda.is_available():
        raise RuntimeError(f'this PyTorch ({torch.__version__}) does not support the {case["platform"]}')
    return 'cuda'


def _device(case: Mapping[str, Any]) -> str:
    return 'cuda' if case['platform'] == 'gpu' else 'cpu'


def _make_model(case: Mapping[str, Any], attention: str) -> tuple[Any, Any]:
    """Build the model and its fused AdamW."""
    return pytorch.make_bert(
        'BertForMaskedLM', case['size'], masked_rows.VOCAB, fused=True, device=_device(case),
        hidden_dropout_prob=case['dropout'], max_position_embeddings=max(512, case['length']),
        attn_implementation=attention,
    )  # fmt: skip


def _autocast(case: Mapping[str, Any]) -> Any:
    import torch

    return torch.autocast(_device(case), dtype=torch.bfloat16, enabled=case['dtype'] == 'bfloat16')


def _predicted(batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the predicted positions."""
    row, slot = np.nonzero(batch['weights'])
    return row, batch['positions'][row, slot]


def _make_tuned(case: Mapping[str, Any], variant: str) -> tuple[Callable[[], Any], Any, Any]:
    """Build the function that computes the loss, the model, and its optimizer; see `_VARIANTS`."""
    import torch

    batch = masked_rows.make_batch(case['kind'], case['rows'], case['length'])
    documents = batch['valid'].astype(np.int32)
    row, column = _predicted(batch)
    tokens, targets = batch['tokens'], batch['tokens'][row, column]
    places = row * case['length'] + column  # of the predicted positions in all tokens
    positions = _restart_positions(documents)
    mask: Any = None
    attention = 'sdpa'
    if variant == 'without padding':
        is_real = documents.ravel() > 0
        places = (np.cumsum(is_real) - 1)[places]
        tokens, positions = (x.ravel()[is_real][None] for x in (tokens, positions))
        attention = _register_attention(np.flatnonzero(positions[0] == 0), positions.size, _device(case))
    elif variant == 'sdpa with a mask':
        mask = documents > 0
        if case['kind'] == 'packed':
            mask = documents[:, None, :, None] == documents[:, None, None, :]
    model, optimizer = _make_model(case, attention)
    move = functools.partial(torch.tensor, device=_device(case))
    inputs = {'input_ids': move(tokens.astype(np.int64)), 'position_ids': move(positions.astype(np.int64))}
    if mask is not None:
        inputs['attention_mask'] = move(mask)
    indices, labels = move(places), move(targets.astype(np.int64))

    def compute_loss() -> Any:
        with _autocast(case), _attention_kernels(variant):
            hidden = model.bert(**inputs).last_hidden_state
            logits = model.cls(hidden.flatten(0, 1)[indices])
            return torch.nn.functional.cross_entropy(logits.float(), labels)

    return compute_loss, model, optimizer


def _restart_positions(documents: np.ndarray) -> np.ndarray:
    """Return the position of each token [B, T] in its document; padding counts as a document."""
    index = np.arange(documents.shape[1])
    is_first = documents != np.pad(documents, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    return index - np.maximum.accumulate(np.where(is_first, index, 0), axis=1)


def _register_attention(starts: np.ndarray, total: int, device: str) -> str:
    """Register attention within texts that lie one after another, [1, N, T, H], and return its name in transformers.

    Args:
      starts: first token of each text.
      total: number of tokens, T.
      device: device of PyTorch.
    """
    import torch
    from torch.nn.attention.varlen import varlen_attn  # PyTorch 2.10
    from transformers import AttentionInterface

    limits = np.append(starts, total)
    ends, longest = torch.tensor(limits.astype(np.int32), device=device), int(np.diff(limits).max())

    def attend(module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
        return varlen_attn(query, key, value, ends, ends, longest, longest)[None], None

    AttentionInterface.register('variable_length', attend)
    return 'variable_length'


def _attention_kernels(variant: str) -> Any:
    """Return a context in which PyTorch prefers cuDNN for attention, if the variant says so."""
    if variant != 'sdpa with cuDNN':
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.CUDNN_ATTENTION)


def _time(
    case: Mapping[str, Any], compute_loss: Callable[[], Any], model: Any, optimizer: Any
) -> dict[str, Any]:
    """Time train steps."""
    import torch

    is_gpu = _device(case) == 'cuda'
    loss: Any = None

    def run_steps(steps: int) -> None:
        nonlocal loss
        for _ in range(steps):
            loss = compute_loss()
            pytorch.update(model, optimizer, loss)
        if is_gpu:
            torch.cuda.synchronize()

    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    result = time_steps(run_steps, case['seconds'])
    last = loss.item()
    if not math.isfinite(last):
        raise ValueError(f'the loss is {last}')
    memory = torch.cuda.max_memory_allocated() if is_gpu else None
    return {**result, 'loss': last, 'peak_memory': memory, 'torch': torch.__version__}


def _free_memory() -> None:
    """Free the memory of the models that are not used anymore."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
