"""Does a model that learnt a task in one language read another better if the difference of their means is taken away?

Libovický et al. 2020 (arXiv 2004.05160) centre the representations of each language in this way. The means are those of the
very rows that are scored, without their labels.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.evals.evaluator import Evaluator
from bert_jax.modeling import module
from bert_jax.reports import plots
from bert_jax.studies.hidden_states import Batch
from bert_jax.studies.language_location import mean_of
from bert_jax.studies.mean_shift import moved
from bert_jax.train.load import Trained


def study(trained: Trained, home: Evaluator, away: Evaluator, score: str) -> dict[str, Any]:
    """Scores in the foreign language as it is, and with all hidden states of one layer moved, for each layer.

    Args:
      trained: a fine-tuned encoder.
      home, away: rows of the task in the language that it was trained on, and in the other.
      score: which of the scores, such as 'accuracy'.
    """
    difference = means(trained, home, '--home') - means(trained, away, '--away')
    unmoved = _score(away, trained.params, score)
    by_layer = [
        _score(away, moved(trained.params, trained.experiment.model, layer, vector), score)
        for layer, vector in enumerate(difference)
    ]
    return {
        'score': score,
        'rows': away.rows,
        'home': _score(home, trained.params, score),
        'by_layer': by_layer,
        'scores': {'unmoved': unmoved, 'removed': by_layer[len(by_layer) // 2], 'best': max(by_layer)},
    }


def means(trained: Trained, evaluator: Evaluator, name: str) -> np.ndarray:
    """The mean hidden state [L+1, D] of the ordinary tokens of an evaluator's rows, which errors call by `name`.

    Raises:
      UserError: if the model is no encoder, or the rows have no ordinary tokens.
    """
    model = trained.experiment.model.name
    if model != 'bert':
        raise UserError(f'The means are those of an encoder, and this is a {model}: give a fine-tuned BERT.')

    @jax.jit
    def encode(params: module.Params, batch: Batch) -> jax.Array:
        model = module.merge(trained.graph, params)
        return jnp.stack(model.bert(*(batch[k] for k in ('tokens', 'segments', 'valid'))).hidden_states)

    def batches() -> Iterator[tuple[np.ndarray, Batch]]:
        for indices, batch in evaluator.batches():
            if batch['tokens'].ndim > 2:
                raise UserError('Choices of several texts each are not supported: take another task.')
            ordinary = np.isin(batch['tokens'], trained.tokenizer.ordinary) & batch['valid']
            yield indices, {**batch, 'ordinary': ordinary & (batch['row_weight'][:, None] > 0)}

    return mean_of(batches(), lambda batch: np.asarray(encode(trained.params, batch), np.float32), name)


def _score(evaluator: Evaluator, params: module.Params, score: str) -> float:
    scores = evaluator(params)
    if not isinstance(scores.get(score), float):
        known = ', '.join(k for k, v in scores.items() if isinstance(v, float))
        raise UserError(f'--score={score} is none of {known}.')
    return scores[score]


def lines(found: dict[str, Any]) -> list[list[str]]:
    """A table, a head line first."""
    rows = [
        ('the language of training', found['home']),
        ('the other, as it is', found['scores']['unmoved']),
    ]
    rows += [(f'mean removed at layer {i}', value) for i, value in enumerate(found['by_layer'])]
    return [['', found['score']], *([name, f'{value:.4f}'] for name, value in rows)]


def figure(found: dict[str, Any]) -> Any:
    """The score by layer, between those without removal and at home."""
    fig, ax = plots.pyplot().subplots(figsize=(5, 3.6), layout='constrained')
    layers = range(len(found['by_layer']))
    ax.axhline(found['home'], color='black', linestyle=':', label='the language of training')
    ax.plot(layers, found['by_layer'], 'o-', label="the other, its language's mean removed")
    ax.axhline(found['scores']['unmoved'], color='C1', linestyle='--', label='the other, as it is')
    ax.set(xlabel='layer (0: embeddings)', ylabel=found['score'], xticks=[*layers])
    ax.set_title(f'{found["rows"]:,} rows', fontsize='medium')
    ax.grid(alpha=0.3)
    ax.legend(fontsize='small')
    return fig
