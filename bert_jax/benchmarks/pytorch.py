"""Models and optimizers of the PyTorch programs in the benchmarks."""

import logging
from collections.abc import Callable
from typing import Any

from bert_jax.core.errors import first_line


def make_bert(
    class_name: str, size: str, vocab_size: int, fused: bool = False, device: str = 'cpu', **settings: Any
) -> tuple[Any, Any]:
    """Build a BERT of transformers, and its AdamW.

    Args:
      class_name: class of transformers.
      size: size in `bert.SIZES`.
      vocab_size: vocabulary size.
      fused: whether AdamW updates all parameters in one kernel.
      device: device of PyTorch.
      **settings: further settings of `BertConfig`; by default there is no dropout.
    """
    import torch
    import transformers

    from bert_jax.modeling.bert import SIZES

    layers, width, heads, mlp = SIZES[size]
    config = transformers.BertConfig(
        vocab_size=vocab_size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=mlp, **{'hidden_dropout_prob': 0.0, 'attention_probs_dropout_prob': 0.0, **settings},
    )  # fmt: skip
    model = getattr(transformers, class_name)(config).to(device)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=fused)


def autocast(dtype: str) -> Any:
    """Return a context in which matrix products on the CPU are computed in `dtype`."""
    import torch

    return torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16')


def update(model: Any, optimizer: Any, loss: Any) -> None:
    """Update a model by the gradients of a loss, clipped to norm 1."""
    import torch

    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def highest_rate(measure: Callable[[Callable[..., Any]], float], dynamic: bool = False) -> dict[str, Any]:
    """Measure a rate without and with `torch.compile`.

    Args:
      measure: function that returns the rate. Its argument compiles a function, or returns it unchanged.
      dynamic: whether one compiled program serves all lengths.

    Returns:
      The higher rate, and whether it was measured with `torch.compile`.
    """
    import torch

    rate = measure(lambda function: function)
    try:
        compiled_rate = measure(lambda function: torch.compile(function, dynamic=dynamic))
    except Exception as e:  # such as a missing C++ compiler
        logging.warning('torch.compile failed (%s)', first_line(e))
        compiled_rate = 0.0
    return {'rate': max(rate, compiled_rate), 'compiled': compiled_rate > rate}
