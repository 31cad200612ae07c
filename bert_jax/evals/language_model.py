"""Evaluate a language model.

Causal ones: perplexity, LAMBADA, multiple choice, few-shot prompts. Masked ones: the loss of masked tokens. Both: minimal
pairs.
"""

import dataclasses
import functools
import logging
import math
import re
import string
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from ml_collections import ConfigDict

from bert_jax.core import config as config_lib
from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.data import formats, labeled, multiple_choice, scripts
from bert_jax.data import records as records_lib
from bert_jax.data.records import Record
from bert_jax.evals import masked_text, minimal_pairs
from bert_jax.evals.token_scores import (
    CausalScorer,
    MaskedScorer,
    Query,
    Scored,
    TokenScores,
    begin_document,
    windows,
)
from bert_jax.train import load
from bert_jax.train.load import TrainedModel


@dataclasses.dataclass(frozen=True)
class LmConfig:
    """Settings of an evaluation of a language model: the section `eval` of a config.

    Attributes:
      kind: what the model predicts. A causal language model: each token of running text ('perplexity'), the last word of
        a passage ('last_word', as in LAMBADA, Paperno et al. 2016), or one of several answers ('choice', as in Brown et
        al. 2020, section 2.4). A masked language model: masked tokens of running text ('masked_loss'), or
        all tokens at all rates of masking, which bounds the likelihood of the text ('diffusion_bound'). Both: which of two
        sentences is more likely ('minimal_pairs', as in BLiMP, Warstadt et al. 2020).
      source: text files, labeled files or a TFDS name. For running text, empty means the documents held out from the
        checkpoint's pretraining. For minimal pairs, the name of a TFDS data set without a config means all its configs.
      split: split to evaluate, see `records.read`.
      train_split: split of the examples in few-shot prompts.
      text: field of the text or passage.
      template: prompt for 'choice': text that has field names in braces and ends with {answer}.
      answers: text that replaces {answer} for each class, in the order of the class ids, or of the class names if the
        data set has no ids; empty uses the class names.
      endings: field that lists a record's own answers, or several fields that hold one each; empty if all
        records have the same answers.
      ending_prefix: see `multiple_choice.ChoiceConfig`.
      label: field with the correct class or, with `endings`, the index of the correct answer.
      good: field with the better sentence of a minimal pair.
      bad: field with the worse sentence of a minimal pair.
      group: field of the phenomenon of a minimal pair, for each of which the accuracy is also reported; empty for none.
      likelihood: how a model of the task `hybrid` scores minimal pairs: 'masked' by pseudo-log-likelihood, or 'causal'.
      mask_rate: share of the tokens that 'masked_loss' masks, in the way of BERT's pretraining.
      num_shots: number of random examples from `train_split` that precede each prompt, with their answers.
      separator: text between the examples of a prompt.
      length: maximum number of tokens that the model sees at once; 0 uses the length of its pretraining rows, or all
        positions of a converted model. Minimal pairs are never cut.
      stride: if a text is longer than `length`, the number of new tokens in each window after the first; 0
        uses half of `length`.
      limit: maximum number of records or documents to evaluate, for minimal pairs in each config of the data set; 0
        evaluates all.
      batch_size: rows per batch.
      seed: seed for the random choice of the few-shot examples and of the masked tokens.
    """

    kind: Literal['perplexity', 'last_word', 'choice', 'masked_loss', 'diffusion_bound', 'minimal_pairs'] = (
        'perplexity'
    )
    source: str = ''
    split: str = 'validation'
    train_split: str = 'train'
    text: str = 'text'
    template: str = ''
    answers: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    ending_prefix: str = ''
    label: str = 'label'
    good: str = 'sentence_good'
    bad: str = 'sentence_bad'
    group: str = ''
    likelihood: Literal['masked', 'causal'] = 'masked'
    mask_rate: float = 0.15
    num_shots: int = 0
    separator: str = '\n\n'
    length: int = 0
    stride: int = 0
    limit: int = 0
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, 'eval', 0, math.inf, 'num_shots', 'length', 'stride', 'limit', 'seed')
        check_range(self, 'eval', 1, math.inf, 'batch_size')
        check_range(self, 'eval', 1e-6, 1, 'mask_rate')
        if self.kind == 'choice':
            self._check_template()
        if len({*self.answers}) < len(self.answers):
            raise UserError(
                f'eval.answers={self.answers} has a repeated answer. Use a different one for each class.'
            )

    def _check_template(self) -> None:
        """Raise UserError unless the template ends with {answer}, and all its braces hold plain field names."""
        try:
            parts = [*string.Formatter().parse(self.template)]
        except ValueError as e:
            raise UserError(
                f'eval.template={self.template!r} is not a valid template ({e}). Write field names in braces.'
            ) from e
        if any(field == '' or spec or conversion for _, field, spec, conversion in parts):
            raise UserError(
                f'eval.template={self.template!r} has braces without a plain field name. Write only field names in braces.'
            )
        if not self.template.endswith('{answer}'):
            raise UserError(
                f'eval.template={self.template!r} must end with {{answer}}, as in "Review: {{sentence}} Sentiment: {{answer}}".'
            )


@functools.cache
def is_config(spec: str) -> bool:
    """Return whether a config file is one of `eval_lm`: whether it has only the section `eval`."""
    try:
        return [*config_lib.load(spec)] == ['eval']
    except UserError:  # reading the config reports what is wrong with it
        return False


def read_config(spec: str, overrides: Sequence[str] = ()) -> LmConfig:
    """Read the `eval` section of a config file.

    Args:
      spec: config file, with an optional argument after a colon.
      overrides: `eval.KEY=VALUE` changes.
    """
    config = config_lib.load(spec)
    if not is_config(spec):
        raise UserError(
            f'{spec!r} has the sections {", ".join(config)}, but eval_lm accepts only '
            'the section eval. Use a config from configs/eval.'
        )
    full = ConfigDict({'eval': {**vars(LmConfig()), **config.eval}})
    config_lib.override(full, overrides)
    return config_lib.build_section(LmConfig, full.eval, 'eval')


def add_defaults(saved: Any) -> dict[str, Any] | None:
    """Add the defaults of newer settings to a saved config `{'eval': ...}`; return None if it is another config."""
    if not isinstance(saved, dict) or [*saved] != ['eval']:
        return None
    return {'eval': {**config_lib.as_dict(LmConfig()), **saved['eval']}}


class Scorer:
    """Score checkpoints of language models with the settings of an `eval` section.

    Args:
      spec: config file, see `read_config`.
      overrides: `eval.KEY=VALUE` changes.
    """

    def __init__(self, spec: str, overrides: Sequence[str] = ()):
        self.config = read_config(spec, overrides)

    def __call__(self, path: Any) -> dict[str, Any]:
        """Return the scores of the newest checkpoint in `path`, with its step and a description of the data."""
        c = self.config
        scorer: Any = _make_scorer(c, path)
        trained = scorer.trained
        length = c.length or trained.experiment.data.length
        trained.experiment.model.check_length(length, 'eval.length')
        if length < 2:
            raise UserError(f'eval.length={length} leaves nothing to predict. Set it to 2 or more.')
        if c.stride >= length:
            raise UserError(
                f'eval.stride={c.stride} must be less than the window of {length} tokens. Lower eval.stride or raise '
                'eval.length.'
            )
        evaluations: dict[str, Callable[[Any, Any, int], Scored]] = {
            'perplexity': _perplexity,
            'last_word': _last_word,
            'choice': _choice,
            'masked_loss': masked_text.score,
            'diffusion_bound': masked_text.score_bound,
            'minimal_pairs': minimal_pairs.score,
        }
        try:
            scored = evaluations[c.kind](c, scorer, length)
        except UserError as e:
            if not c.source:  # the settings are those of the pretraining data
                raise
            # The error names the setting `data.KEY`, but in this config it is `eval.KEY`.
            settings = r"(?<![\w'/.])data\.(?:eval_)?(source|label|text|split|train_split|endings|ending_prefix)(s|_key)?\b"
            raise UserError(re.sub(settings, r'eval.\1', str(e))) from e
        stride = {'stride': _stride(c, length)} if c.kind == 'perplexity' else {}
        windows_text = f'up to {length} tokens' + (f', {stride["stride"]} of them new' if stride else '')
        logging.info(
            'scored %s tokens, %s bytes, in windows of %s',
            f'{scored.tokens:,}',
            f'{scored.bytes:,}',
            windows_text,
        )
        return {
            'checkpoint': str(path),
            'step': trained.step,
            'source': c.source or 'held-out documents',
            'split': records_lib.used_split(c.source, c.split) if c.source else '',
            'rows': scored.rows,
            'length': length,
            **stride,
            'tokenizer': {'entries': len(trained.tokenizer), 'fingerprint': trained.tokenizer.fingerprint},
            'tokens': scored.tokens,
            'bytes': scored.bytes,
            'config': config_lib.as_dict(c),
            'scores': scored.scores,
        }

    @staticmethod
    def format_scores(scores: dict[str, float]) -> str:
        """Format scores as a plain-text table."""
        width = max(map(len, scores))
        return '\n'.join(f'{name:>{width}}  {value:,.4f}' for name, value in scores.items())


def _make_scorer(config: LmConfig, path: Any) -> CausalScorer | MaskedScorer:
    """Load the newest checkpoint in `path`; raises UserError if the evaluation needs a model of another kind."""
    if config.kind in ('masked_loss', 'diffusion_bound'):
        return MaskedScorer(load.read_masked(path), config.batch_size)
    if config.kind != 'minimal_pairs':
        return CausalScorer(load.read_next_token_model(path), config.batch_size)
    trained = load.read_language_model(path)
    if config.likelihood == 'causal' and not trained.predicts_next_tokens:
        raise UserError(
            f'eval.likelihood=causal needs a model that predicts next tokens, and {str(path)!r} was trained with '
            f'task.name={trained.experiment.task.name}. Remove eval.likelihood.'
        )
    is_causal = trained.is_causal or (config.likelihood == 'causal' and trained.predicts_next_tokens)
    return (CausalScorer if is_causal else MaskedScorer)(trained, config.batch_size)


def _stride(config: LmConfig, length: int) -> int:
    """Return the number of new tokens in each window after the first."""
    return config.stride or max(1, length // 2)


def _perplexity(config: LmConfig, scorer: CausalScorer, length: int) -> Scored:
    """Score whole documents. Each follows an end-of-document token, which is not scored."""
    tokenizer = scorer.trained.tokenizer
    texts = masked_text.read_documents(config, scorer.trained.experiment.data)
    encoded = tokenizer.encode(texts)
    if not all(tokenizer.decode(ids) == text for ids, text in zip(encoded[:8], texts, strict=False)):
        logging.warning(
            'The tokenizer discards case or spaces, so bits per byte do not count that information.'
        )
    queries = [
        Query(tokens[start:stop], first - start)
        for tokens in (begin_document(ids, scorer.trained) for ids in encoded)
        for start, stop, first in windows(len(tokens), length, _stride(config, length))
        if stop > first
    ]
    losses, is_greedy = map(np.concatenate, zip(*scorer(queries), strict=True))
    total = float(losses.sum())
    all_ids = np.concatenate(encoded)
    num_bytes = sum(len(text.encode()) for text in texts)
    words = sum(len(text.split()) for text in texts) if scripts.separates_words(texts) else 0
    scores = {
        'perplexity': _exp(total / len(losses)),
        **({'word_perplexity': _exp(total / words)} if words else {}),
        'bits_per_byte': total / math.log(2) / num_bytes,
        'accuracy': float(is_greedy.mean()),
        'unknown': 0.0 if tokenizer.family == 'gpt2' else float(np.mean(all_ids == tokenizer.unk)),
    }
    return Scored(len(texts), len(losses), num_bytes, scores)


def _exp(mean: float) -> float:
    """Return exp(mean), with `mean` capped at 700 to avoid overflow."""
    return math.exp(min(mean, 700.0))


def _last_word(config: LmConfig, scorer: CausalScorer, length: int) -> Scored:
    """Score the last word of each record.

    A word is correct if each of its tokens has the highest probability given the tokens before it.
    """
    records = records_lib.read(config.source, config.split, config.limit)
    continuations = []
    for record in records:
        context, space, word = record.text(config.text, 'data.text').rstrip().rpartition(' ')
        if not space:
            raise record.error('has fewer than two words')
        continuations.append((record.location, context, space + word))
    scores = scorer(make_queries(continuations, scorer.trained, length))
    values = {
        'accuracy': float(np.mean([s.is_greedy.all() for s in scores])),
        'perplexity': _exp(float(np.mean([s.losses.sum() for s in scores]))),
    }
    return Scored(len(records), *_sizes(continuations, scores), values)


def _sizes(continuations: Sequence[tuple[str, str, str]], scores: Sequence[TokenScores]) -> tuple[int, int]:
    """Count the scored tokens, and the bytes of the continuations."""
    return sum(len(s.losses) for s in scores), sum(len(text.encode()) for _, _, text in continuations)


def make_queries(
    continuations: Sequence[tuple[str, str, str]], trained: TrainedModel, length: int
) -> list[Query]:
    """Encode each context with its continuation, and cut off the beginning of a context that is too long.

    Args:
      continuations: for each query, the location of its record, its context and its continuation. The continuation
        begins with the space that separates it from the context.
      trained: the model.
      length: maximum number of tokens of a query.
    """
    tokenizer = trained.tokenizer
    contexts = tokenizer.encode([context for _, context, _ in continuations])
    texts = tokenizer.encode([context + continuation for _, context, continuation in continuations])
    queries = []
    for (location, _, continuation), context, text in zip(continuations, contexts, texts, strict=True):
        # A token that spans the border belongs to the continuation.
        common = min(len(context), len(text) - 1)
        is_equal = context[:common] == text[:common]
        first = common if is_equal.all() else int(np.argmin(is_equal))
        if len(text) - first >= length:
            raise UserError(
                f'{location} has the answer {continuation[:40]!r}, which is longer than the window of {length} tokens. '
                'Raise eval.length, or remove the record.'
            )
        tokens = begin_document(text, trained)
        cut = max(0, len(tokens) - length)
        queries.append(Query(tokens[cut:], first + 1 - cut))
    return queries


def _choice(config: LmConfig, scorer: CausalScorer, length: int) -> Scored:
    """Score multiple choice. The answer with the highest log-likelihood, in total, per token or per byte, is chosen."""
    records = records_lib.read(config.source, config.split, config.limit)
    options, correct_options = _options(config, records)
    prompts = _prompts(config, records)
    continuations = []
    for record, prompt, answers in zip(records, prompts, options, strict=True):
        context = prompt.rstrip(' ')
        continuations += [(record.location, context, prompt[len(context) :] + answer) for answer in answers]
    scored = scorer(make_queries(continuations, scorer.trained, length))
    scores = iter(scored)
    is_correct = []
    for answers, label in zip(options, correct_options, strict=True):
        losses = [next(scores).losses for _ in answers]
        totals = np.array([loss.sum() for loss in losses])
        num_tokens = np.array([len(loss) for loss in losses])
        num_bytes = np.array([max(1, len(answer.encode())) for answer in answers])
        is_correct.append(
            [int(x.argmin()) == label for x in (totals, totals / num_tokens, totals / num_bytes)]
        )
    names = ('accuracy', 'accuracy_token_normalized', 'accuracy_byte_normalized')
    accuracies = {name: float(x) for name, x in zip(names, np.mean(is_correct, axis=0), strict=True)}
    majority = np.bincount(correct_options).max() / len(correct_options)
    return Scored(len(records), *_sizes(continuations, scored), accuracies | {'majority': float(majority)})


def _options(config: LmConfig, records: Sequence[Record]) -> tuple[list[list[str]], list[int]]:
    """Return the possible answers of each record, and the index of the correct one."""
    if config.endings:
        options = [multiple_choice.read_endings(record, config) for record in records]
        names: Sequence[str] = [str(i) for i in range(max(map(len, options)))]
    else:
        names = labeled.label_names(config)
        # Numbers may be missing from a small file; `answers` says how many classes there are.
        if config.answers and all(name.isdecimal() for name in names):
            names = [str(i) for i in range(len(config.answers))]
        if config.answers and len(config.answers) != len(names):
            raise UserError(
                f'eval.answers has {len(config.answers)} answers for the {len(names)} classes {", ".join(names)}. '
                'List one answer for each class.'
            )
        are_class_names = {*config.answers} == {*names}  # then their order does not matter
        answers = names if are_class_names else config.answers or names
        options = [[*answers] for _ in records]
    label_map = labeled.LabelMap(config, names)
    labels = [
        label_map.class_id(record.get(config.label, 'data.label'), record.location) for record in records
    ]
    for record, answers_, label in zip(records, options, labels, strict=True):
        if label >= len(answers_):
            raise record.error(f'has the label {label}, but only {len(answers_)} endings')
    return options, labels


def _prompts(config: LmConfig, records: Sequence[Record]) -> list[str]:
    """Return the prompt of each record, with its few-shot examples and without its answer."""
    if not config.num_shots:
        return [_fill_template(config, record) for record in records]
    is_one_file = formats.is_path(config.source) and '{split}' not in config.source
    if is_one_file or config.train_split == config.split:
        raise UserError(
            f'eval.num_shots={config.num_shots} would take examples from the evaluated records. Put {{split}} into '
            'eval.source, and set eval.train_split to another split.'
        )
    train_records = records_lib.read(config.source, config.train_split)
    if len(train_records) < config.num_shots:
        raise UserError(
            f'eval.num_shots={config.num_shots} exceeds the {len(train_records)} records of {config.train_split!r}. Lower eval.num_shots.'
        )
    options, correct_options = _options(config, train_records)
    prompts = []
    for i, record in enumerate(records):
        rng = np.random.default_rng((config.seed, i))
        shots = rng.choice(len(train_records), config.num_shots, replace=False)
        examples = [_fill_template(config, train_records[j]) + options[j][correct_options[j]] for j in shots]
        prompts.append(config.separator.join([*examples, _fill_template(config, record)]))
    return prompts


def _fill_template(config: LmConfig, record: Record) -> str:
    """Fill in the template up to the answer."""
    template = config.template.removesuffix('{answer}')
    return ''.join(
        text + (record.text(field, 'eval.template').strip() if field else '')
        for text, field, _, _ in string.Formatter().parse(template)
    )
