"""Mean removal for cross-lingual transfer: shift a target language to the mean of the fine-tuning language.

Libovický et al. 2020 (arXiv 2004.05160) center the representations of each language in this way. The means are taken
over the evaluation rows themselves, without their labels. Ordinary tokens are defined in `hidden_states`.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.core.metrics import is_lower_better
from bert_jax.evals.evaluator import Evaluator
from bert_jax.modeling import module
from bert_jax.reports import plots
from bert_jax.studies.hidden_states import Batch
from bert_jax.studies.language_location import mean_hidden_state
from bert_jax.studies.mean_shift import shift_layer
from bert_jax.train.load import TrainedModel


def study(trained: TrainedModel, source: Evaluator, target: Evaluator, metric: str) -> dict[str, Any]:
    """Score a fine-tuned model on a target language, without mean removal and with mean removal at one layer at a time.

    Args:
      trained: a fine-tuned encoder.
      source: rows of the task in the fine-tuning language.
      target: rows of the task in another language.
      metric: metric to report, such as 'accuracy'.

    Returns:
      JSON-ready results: the score in the source language (`source_score`), and the target-language score for each
      layer at which the mean is removed (`mean_removed_by_layer`). `scores` holds the target-language scores that the
      columns of a table can show: without mean removal (`baseline`), and with mean removal at the middle layer
      (`mean_removed`) and at the best layer (`best_mean_removed`).
    """
    source_mean = mean_by_layer(trained, source, '--source_config')
    difference = source_mean - mean_by_layer(trained, target, '--target_config')
    baseline = _score(target, trained.params, metric)
    by_layer = [
        _score(target, shift_layer(trained.params, trained.experiment.model, layer, vector), metric)
        for layer, vector in enumerate(difference)
    ]
    return {
        'metric': metric,
        'rows': target.num_rows,
        'source_score': _score(source, trained.params, metric),
        'mean_removed_by_layer': by_layer,
        'scores': {
            'baseline': baseline,
            'mean_removed': by_layer[len(by_layer) // 2],
            'best_mean_removed': (min if is_lower_better(metric) else max)(by_layer),
        },
    }


def mean_by_layer(trained: TrainedModel, evaluator: Evaluator, name: str) -> np.ndarray:
    """Mean hidden state of the ordinary tokens in the rows of an evaluator, for each layer, [L+1, D].

    Ordinary tokens are those that are neither special tokens nor padding.

    Args:
      trained: a fine-tuned encoder.
      evaluator: evaluator whose rows are encoded.
      name: name of the rows in error messages, such as '--source_config'.

    Raises:
      UserError: if the model is not an encoder, the task has several texts per row, or no token is ordinary.
    """
    model = trained.experiment.model.name
    if model != 'bert':
        raise UserError(
            f'Mean removal needs an encoder, and the checkpoint is a {model}. Pass a fine-tuned BERT.'
        )

    @jax.jit
    def encode(params: module.Params, batch: Batch) -> jax.Array:
        model = module.merge(trained.graph, params)
        return jnp.stack(model.bert(*(batch[k] for k in ('tokens', 'segments', 'valid'))).hidden_states)

    def states() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _, batch in evaluator.batches():
            if batch['tokens'].ndim > 2:
                raise UserError('Mean removal does not support multiple choice. Use another task.')
            ordinary = np.isin(batch['tokens'], trained.tokenizer.ordinary_ids) & batch['valid']
            hidden = np.asarray(encode(trained.params, batch), np.float32)
            yield hidden, ordinary & (batch['row_weight'][:, None] > 0)

    return mean_hidden_state(states(), name)


def _score(evaluator: Evaluator, params: module.Params, metric: str) -> float:
    scores = evaluator(params)
    if not isinstance(scores.get(metric), float):
        known = ', '.join(k for k, v in scores.items() if isinstance(v, float))
        raise UserError(f'--metric={metric} is not a metric of this task. Choose one of {known}.')
    return scores[metric]


def make_table(results: dict[str, Any]) -> list[list[str]]:
    """Make the rows of the table, header first, with one score per row.

    The scores are those in the source language, in the target language, and in the target language with the
    mean removed at each layer in turn.
    """
    scores = {'source language': results['source_score'], 'target language': results['scores']['baseline']}
    for layer, score in enumerate(results['mean_removed_by_layer']):
        scores[f'mean removed at layer {layer}'] = score
    return [['', results['metric']], *([name, f'{score:.4f}'] for name, score in scores.items())]


def make_figure(results: dict[str, Any]) -> Any:
    """Plot the score against the layer of mean removal, with the source and target scores as horizontal lines."""
    fig, ax = plots.pyplot().subplots(figsize=(5, 3.6), layout='constrained')
    by_layer = results['mean_removed_by_layer']
    layers = range(len(by_layer))
    ax.axhline(results['source_score'], color='black', linestyle=':', label='source language')
    ax.plot(layers, by_layer, 'o-', label='target language, mean removed')
    ax.axhline(results['scores']['baseline'], color='C1', linestyle='--', label='target language')
    ax.set(
        xlabel='layer where the mean is removed (0: embeddings)', ylabel=results['metric'], xticks=[*layers]
    )
    ax.set_title(f'{results["rows"]:,} examples in the target language', fontsize='medium')
    ax.grid(alpha=0.3)
    ax.legend(fontsize='small')
    return fig
