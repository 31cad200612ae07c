"""Adapter for EleutherAI's lm-evaluation-harness (`lm_eval`), whose tasks then evaluate a model of this package."""

import pathlib
from collections.abc import Sequence
from typing import Any

from bert_jax.core.errors import UserError
from bert_jax.evals.language_model import make_queries
from bert_jax.evals.token_scores import CausalScorer, MaskedScorer, Query, begin_document, windows
from bert_jax.modeling import decoding
from bert_jax.train import load

MAX_NEW_TOKENS = 256  # unless a task sets max_gen_toks


class LanguageModel:
    """Answer the requests of the harness, which have their arguments in `args`.

    A masked language model scores texts without context, by pseudo-log-likelihood, which is what BLiMP needs.

    Args:
      checkpoint: working directory of a run, or the folder of one of its checkpoints.
      batch_size: rows per batch.
      length: maximum number of tokens that the model sees at once; 0 uses the length of its pretraining rows.

    Raises:
      UserError: if the checkpoint is not a language model, or cannot read `length` tokens.
    """

    def __init__(self, checkpoint: str | pathlib.Path, batch_size: int = 16, length: int = 0):
        super().__init__()
        trained = load.read_language_model(checkpoint)
        self._scorer = (CausalScorer if trained.is_causal else MaskedScorer)(trained, batch_size)
        self._trained, self._length = trained, length or trained.experiment.data.length
        trained.experiment.model.check_length(self._length, 'length')

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation after its context, and whether greedy decoding would produce it."""
        pairs = [request.args for request in requests]
        if isinstance(self._scorer, MaskedScorer):
            if any(context for context, _ in pairs):
                raise UserError(
                    'A masked language model cannot continue a context. Choose tasks without one, such as blimp.'
                )
            encoded = self._trained.tokenizer.encode([text for _, text in pairs])
            return [(float(total), False) for total in self._scorer.log_likelihoods(encoded)]
        continuations = [
            (f'request {i}', kept := context.rstrip(' '), context[len(kept) :] + text)
            for i, (context, text) in enumerate(pairs)
        ]
        scores = self._scorer(make_queries(continuations, self._trained, self._length))
        return [(-float(s.losses.sum()), bool(s.is_greedy.all())) for s in scores]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the log-likelihood of each text, read in windows of which each has half of its tokens in common with the last."""
        scorer = self._check_causal()
        totals = []
        for request in requests:
            (ids,) = self._trained.tokenizer.encode([request.args[0]])
            tokens = begin_document(ids, self._trained)
            queries = [
                Query(tokens[start:stop], first - start)
                for start, stop, first in windows(len(tokens), self._length, max(1, self._length // 2))
                if stop > first
            ]
            totals.append(-float(sum(scores.losses.sum() for scores in scorer(queries))))
        return totals

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return a greedy continuation of each context, up to the first of its stop strings."""
        self._check_causal()
        return [self._generate(*request.args) for request in requests]

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        if options.get('do_sample'):
            raise UserError(
                'Sampling is not supported here. Set do_sample to false in generation_kwargs of the task.'
            )
        tokenizer, length = self._trained.tokenizer, options.get('max_gen_toks', MAX_NEW_TOKENS)
        longest = min(self._trained.experiment.model.longest_row, 1 << 20) - length
        if longest < 1:
            raise UserError(f'max_gen_toks={length} leaves no room for a context. Lower it in the task.')
        (ids,) = tokenizer.encode([context])
        prompt = begin_document(ids, self._trained)[-int(longest) :]
        (new,) = decoding.generate(
            self._trained.graph, self._trained.params, [prompt], length, end=tokenizer.sep
        )
        text = tokenizer.decode([*prompt[1:], *new])[len(tokenizer.decode(prompt[1:])) :]
        stops = options.get('until') or ()
        for stop in (stops,) if isinstance(stops, str) else stops:
            text = text.partition(stop)[0]
        return text

    def _check_causal(self) -> CausalScorer:
        if not isinstance(self._scorer, CausalScorer):
            raise UserError(
                'This task needs a causal language model. Set the checkpoint to a run of task.name=clm.'
            )
        return self._scorer


def make(checkpoint: str | pathlib.Path, batch_size: int = 16, length: int = 0) -> Any:
    """Return a `LanguageModel` that is also an `lm_eval.api.model.LM`, for `lm_eval.simple_evaluate(model=...)`.

    Raises:
      UserError: if the harness is not installed, or as in `LanguageModel`.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError as e:
        raise UserError('The adapter needs the harness. Install it: pip install lm-eval') from e
    return type('HarnessModel', (LanguageModel, LM), {})(checkpoint, batch_size, length)
