"""Study how many dimensions the hidden states of each layer use."""

from typing import Any

import numpy as np

from bert_jax.reports import plots
from bert_jax.studies.hidden_states import SentenceEncoder


def study(encoder: SentenceEncoder) -> dict[str, Any]:
    """Compute the effective dimensionality of each layer, from the ordinary tokens of all sentences.

    It is (tr C)² / tr C² of the covariance matrix C of the hidden states: D if all directions have the same variance,
    1 if a single direction has all of it (Del Giudice 2021, the index n2).

    Returns:
      JSON-ready results: the number of `tokens`, and `dimensions` by layer. `scores` are those that tables can show.
    """
    count, total, products = 0, np.zeros(1), np.zeros(1)
    for language in encoder.languages:
        for _, batch in encoder.batches(language):
            hidden = encoder.hidden_states(batch)[:, batch['ordinary']].astype(np.float64)  # [L+1, M, D]
            count += hidden.shape[1]
            total = total + hidden.sum(1)
            products = products + hidden.transpose(0, 2, 1) @ hidden
    mean = total / count
    covariance = products / count - mean[:, :, None] * mean[:, None]
    variance = np.trace(covariance, axis1=1, axis2=2)
    dimensions = (variance**2 / np.square(covariance).sum((1, 2))).tolist()
    return {
        'tokens': count,
        'dimensions': dimensions,
        'scores': {'embeddings': dimensions[0], 'last_layer': dimensions[-1]},
    }


def make_table(results: dict[str, Any]) -> list[list[str]]:
    """Return the lines of cells, the header first."""
    return [['layer', 'dimensions'], *([str(i), f'{d:.1f}'] for i, d in enumerate(results['dimensions']))]


def make_figure(results: dict[str, Any]) -> Any:
    """Plot the effective dimensionality by layer."""
    fig, ax = plots.pyplot().subplots(figsize=(5, 3.6), layout='constrained')
    ax.plot(results['dimensions'], 'o-')
    ax.set(xlabel='layer (0: embeddings)', ylabel='effective dimensionality', ylim=(0, None))
    ax.grid(alpha=0.3)
    return fig
