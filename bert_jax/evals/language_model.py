"""What a causal language model makes of text: perplexity, last words, choices, and prompts with examples."""

import contextlib
import dataclasses
import functools
import logging
import math
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from bert_jax.core import config as config_lib
from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.data import labeled, multiple_choice, prepare, records, sources
from bert_jax.data.pipeline import cuts
from bert_jax.data.records import Record
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import module
from bert_jax.train import load

CHUNK = 128  # positions of a row whose scores of the vocabulary are in memory at once


@dataclasses.dataclass(frozen=True)
class LmConfig:
    """What is asked of a model that predicts the next token.

    Attributes:
      kind: 'perplexity' of running text; 'last_word' of passages (Paperno et al. 2016); 'choice' of the likeliest
        of several answers (Brown et al. 2020, section 2.4).
      source, split: the data, see `records.read`; of perplexity a text file or a TFDS name, or empty for the
        documents that the checkpoint's pretraining held out.
      text: the field of the text or passage.
      template: of a choice, the prompt with fields of the record in braces and {answer} at its end.
      answers: what a class is called in a prompt, in the order of their numbers, or of their names if these are no
        numbers; empty takes the names of the data set.
      endings: of records that bring their own answers, the field with their list, or several fields with one each.
      start: as of `multiple_choice.ChoiceConfig`.
      label: the field with the right class or the number of the right ending.
      shots: so many records of `train_split`, drawn for each prompt, stand before it with their answers.
      between: what stands between them.
      length: tokens that the model sees at a time; 0 is the length of its pretraining.
      stride: tokens that each further window of a long text adds; 0 is half of `length`.
      limit: of so many records or documents; 0 takes all.
      batch_size: rows at a time.
      seed: of the examples drawn.
    """

    kind: Literal['perplexity', 'last_word', 'choice'] = 'perplexity'
    source: str = ''
    split: str = 'validation'
    train_split: str = 'train'
    text: str = 'text'
    template: str = ''
    answers: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    start: str = ''
    label: str = 'label'
    shots: int = 0
    between: str = '\n\n'
    length: int = 0
    stride: int = 0
    limit: int = 0
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        within(self, 'eval', 0, math.inf, 'shots', 'length', 'stride', 'limit', 'seed')
        within(self, 'eval', 1, math.inf, 'batch_size')
        if self.kind == 'choice':
            self._check_template()
        if len({*self.answers}) < len(self.answers):
            raise UserError(
                f'eval.answers={self.answers} has an answer twice: give each class one of its own.'
            )

    def _check_template(self) -> None:
        """Raises UserError if the template is not text with names of fields in braces, and {answer} at its end."""
        try:
            parts = [*string.Formatter().parse(self.template)]
        except ValueError as e:
            raise UserError(
                f'eval.template={self.template!r} cannot be read ({e}): put names of fields in braces.'
            ) from e
        if any(field == '' or spec or conversion for _, field, spec, conversion in parts):
            raise UserError(f'eval.template={self.template!r} may have names of fields alone in its braces.')
        if not self.template.endswith('{answer}'):
            raise UserError(
                f'eval.template={self.template!r} must end with {{answer}}, as "Review: {{sentence}} Sentiment: {{answer}}".'
            )


def read_config(spec: str, overrides: Sequence[str] = ()) -> LmConfig:
    """The `eval` section of a config file, with `eval.KEY=VALUE` overrides."""
    given = config_lib.load(spec)
    if [*given] != ['eval']:
        raise UserError(f'{spec!r} has the sections {", ".join(given)}: a config of eval_lm has eval alone.')
    fields = {f.name: f.default for f in dataclasses.fields(LmConfig)}
    config_lib.section(LmConfig, given.eval, 'eval')
    full = ConfigDict({'eval': {**fields, **given.eval}})
    config_lib.override(full, overrides)
    return config_lib.section(LmConfig, full.eval, 'eval')


class Piece(NamedTuple):
    """Tokens of which those from `first` on, at least the second, are to be predicted from what stands before."""

    tokens: np.ndarray
    first: int


class Found(NamedTuple):
    """What the model made of a piece: the negative log-likelihood of each token, and whether it was the likeliest."""

    losses: np.ndarray
    likeliest: np.ndarray


class Reader:
    """A causal language model that predicts given tokens.

    Args:
      checkpoint: of the task clm.
      batch_size: rows at a time.

    Raises:
      UserError: if there is no checkpoint, or it is of another kind.
    """

    def __init__(self, checkpoint: Any, batch_size: int = 16):
        self.trained = trained = load.read(checkpoint)
        if trained.experiment.task.name != 'clm':
            raise UserError(
                f'{str(checkpoint)!r} does not predict the next token: give the --workdir of a task clm.'
            )
        self._batch_size = batch_size

        @jax.jit
        def read(params: module.Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            model = module.merge(trained.graph, params)
            hidden = model.gpt(tokens).hidden_states[-1][:, :-1]
            return model.token_loss(hidden, tokens[:, 1:], CHUNK)

        self._read = functools.partial(read, trained.params)

    def __call__(self, pieces: Sequence[Piece]) -> list[Found]:
        """What the model makes of each piece; pieces of like length are read together."""
        if not pieces:
            return []
        lengths = np.array([len(p.tokens) for p in pieces])
        to = cuts(lengths, 8, 8)
        found: list[Any] = [None] * len(pieces)
        order = np.argsort(lengths, kind='stable')
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            rows = np.zeros((self._batch_size, to[np.searchsorted(to, lengths[batch[-1]])]), np.int32)
            for row, i in zip(rows, batch, strict=False):
                row[: lengths[i]] = pieces[i].tokens
            losses, likeliest = map(np.asarray, self._read(rows))
            for j, i in enumerate(batch):
                scored = slice(pieces[i].first - 1, lengths[i] - 1)
                found[i] = Found(losses[j, scored].astype(np.float64), likeliest[j, scored])
        return found


def windows(size: int, length: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Windows of at most `length` tokens over `size` tokens, in which each token but the first is predicted once.

    Yields:
      Start and stop of a window, and the first token that is new in it; it has `length - stride` before it.
    """
    stop = min(length, size)
    yield 0, stop, 1
    while stop < size:
        new = min(stop + stride, size)
        yield new - length, new, stop
        stop = new


class Scorer:
    """Asks checkpoints what a config says.

    Args:
      spec: its file, see `read_config`.
      overrides: `eval.KEY=VALUE`.
    """

    def __init__(self, spec: str, overrides: Sequence[str] = ()):
        self.config = read_config(spec, overrides)

    def __call__(self, path: Any) -> dict[str, Any]:
        """Scores of the newest checkpoint below `path`, with what they are scores of."""
        c = self.config
        reader = Reader(path, c.batch_size)
        trained = reader.trained
        model = trained.experiment.model
        length = c.length or trained.experiment.data.length
        model.check_length(length, 'eval.length')
        if length < 2:
            raise UserError(f'eval.length={length} leaves nothing to predict: set it to 2 or more.')
        if c.stride >= length:
            raise UserError(
                f'eval.stride={c.stride} must be less than the {length} tokens that the model sees at a time.'
            )
        ask = {'perplexity': _perplexity, 'last_word': _last_words, 'choice': _choices}[c.kind]
        with _settings_of_eval() if c.source else contextlib.nullcontext():
            rows, scores = ask(c, reader, length)
        return {
            'checkpoint': str(path),
            'step': trained.step,
            'source': c.source or 'held-out documents',
            'split': c.split if c.source and not sources.is_files(c.source) else '',
            'rows': rows,
            'config': config_lib.as_dict(c),
            'scores': scores,
        }

    @staticmethod
    def describe(scores: Mapping[str, float]) -> str:
        """A table of the scores, for people."""
        width = max(map(len, scores))
        return '\n'.join(f'{name:>{width}}  {value:,.4f}' for name, value in scores.items())


@contextlib.contextmanager
def _settings_of_eval() -> Iterator[None]:
    """What reads records and texts calls their settings data.KEY."""
    try:
        yield
    except UserError as e:
        raise UserError(
            re.sub(r"(?<![\w'/.])data\.(source|label|text)(s|_key)?\b", r'eval.\1', str(e))
        ) from e


def _perplexity(config: LmConfig, reader: Reader, length: int) -> tuple[int, dict[str, float]]:
    """Of whole documents; each begins after an end, whose prediction is not counted."""
    data, tokenizer = reader.trained.experiment.data, reader.trained.tokenizer
    found = _documents(config, data)
    texts = [text for _, text in zip(range(config.limit or len(found)), found, strict=False)]
    encoded = tokenizer.encode(texts)
    if not all(tokenizer.decode(ids) == text for ids, text in zip(encoded[:8], texts, strict=False)):
        logging.warning(
            'the tokenizer loses case or spaces of this text: bits per byte are of less than the text holds'
        )
    pieces = [
        Piece(tokens[start:stop], first - start)
        for tokens in (_after_end(ids, tokenizer) for ids in encoded)
        for start, stop, first in windows(len(tokens), length, config.stride or max(1, length // 2))
        if stop > first
    ]
    losses, likeliest = map(np.concatenate, zip(*reader(pieces), strict=True))
    total = float(losses.sum())
    return len(texts), {
        'perplexity': _exp(total / len(losses)),
        'word_perplexity': _exp(total / sum(len(text.split()) for text in texts)),
        'bits_per_byte': total / math.log(2) / sum(len(text.encode()) for text in texts),
        'accuracy': float(likeliest.mean()),
        'unknown': float(np.mean(np.concatenate(encoded) == tokenizer.unk))
        if tokenizer.family != 'gpt2'
        else 0.0,
        'tokens': float(len(losses)),
    }


def _documents(config: LmConfig, pretraining: Any) -> list[str]:
    """The texts, paragraphs by line."""
    if not config.source:
        found: Iterable[Sequence[str]] = prepare.documents(pretraining, 'validation')
    elif records.is_files(config.source) and not config.source.endswith('.jsonl'):
        raise UserError(f'{config.source!r} is no running text: name .txt, .txt.gz or .jsonl files.')
    else:
        found = (d.paragraphs for d in sources.documents(config.source, config.split, config.text))
    texts = ['\n'.join(paragraphs) for paragraphs in found]
    if not texts:
        raise UserError('There is no text to read: set eval.source to text files or a TFDS name.')
    return texts


def _after_end(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Tokens that begin a document."""
    return np.concatenate([np.array([tokenizer.sep], np.int32), ids])


def _exp(mean: float) -> float:
    return math.exp(min(mean, 700.0))


def _last_words(config: LmConfig, reader: Reader, length: int) -> tuple[int, dict[str, float]]:
    """A word is right if each of its tokens is the likeliest after the true ones before."""
    found = records.read(config.source, config.split, config.limit)
    asked = []
    for record in found:
        context, space, word = record.text(config.text).rstrip().rpartition(' ')
        if not space:
            raise UserError(f'{record.where} has no word before its last: mend or remove it.')
        asked.append((record.where, context, space + word))
    made = reader(_continued(asked, reader.trained.tokenizer, length))
    return len(found), {
        'accuracy': float(np.mean([piece.likeliest.all() for piece in made])),
        'perplexity': _exp(float(np.mean([piece.losses.sum() for piece in made]))),
    }


def _continued(asked: Sequence[tuple[str, str, str]], tokenizer: Tokenizer, length: int) -> list[Piece]:
    """Contexts with what goes on from them, which begins with their last space; contexts lose their start if too long.

    `asked` has for each the place of its record, the context, and what goes on.
    """
    contexts = tokenizer.encode([context for _, context, _ in asked])
    wholes = tokenizer.encode([context + more for _, context, more in asked])
    pieces = []
    for (where, _, more), before, whole in zip(asked, contexts, wholes, strict=True):
        # Where a token reaches over the border it belongs to what goes on.
        same = min(len(before), len(whole) - 1)
        equal = before[:same] == whole[:same]
        first = same if equal.all() else int(np.argmin(equal))
        if len(whole) - first >= length:
            raise UserError(
                f'{where} asks for {more[:40]!r}, more tokens than the {length} that the model sees at a time: set '
                'eval.length higher, if the model can, or remove it.'
            )
        tokens = _after_end(whole, tokenizer)
        cut = max(0, len(tokens) - length)
        pieces.append(Piece(tokens[cut:], first + 1 - cut))
    return pieces


def _choices(config: LmConfig, reader: Reader, length: int) -> tuple[int, dict[str, float]]:
    """The likeliest answer, by its log-likelihood, by that of a token of it, and by that of a byte."""
    found = records.read(config.source, config.split, config.limit)
    options, right = _options(config, found)
    prompts = _prompts(config, found)
    asked = []
    for record, prompt, answers in zip(found, prompts, options, strict=True):
        context = prompt.rstrip(' ')
        asked += [(record.where, context, prompt[len(context) :] + answer) for answer in answers]
    made = iter(reader(_continued(asked, reader.trained.tokenizer, length)))
    correct = []
    for answers, label in zip(options, right, strict=True):
        losses = [next(made).losses for _ in answers]
        totals = np.array([loss.sum() for loss in losses])
        sizes = np.array([len(loss) for loss in losses]), np.array([max(1, len(a.encode())) for a in answers])
        correct.append([int(x.argmin()) == label for x in (totals, totals / sizes[0], totals / sizes[1])])
    names = ('accuracy', 'accuracy_by_token', 'accuracy_by_byte')
    scores = {name: float(share) for name, share in zip(names, np.mean(correct, axis=0), strict=True)}
    return len(found), scores | {'majority': float(np.bincount(right).max() / len(right))}


def _options(config: LmConfig, found: Sequence[Record]) -> tuple[list[list[str]], list[int]]:
    """The answers of each record, and the number of the right one."""
    if config.endings:
        options = [multiple_choice.endings(record, config) for record in found]
        names: Sequence[str] = [str(i) for i in range(max(map(len, options)))]
    else:
        names = labeled.label_names(config)
        if config.answers and all(name.isdecimal() for name in names):  # also if some do not occur
            names = [str(i) for i in range(len(config.answers))]
        own = {*config.answers} == {*names}  # in whatever order they are named
        answers = names if own else config.answers or names
        options = [[*answers] for _ in found]
        if config.answers and len(config.answers) != len(names):
            raise UserError(
                f'eval.answers has {len(config.answers)} answers for the classes {", ".join(names)}: name one for each.'
            )
    classes = labeled.Classes(config, names)
    right = [classes.number(record.get(config.label), record.where) for record in found]
    for record, endings, label in zip(found, options, right, strict=True):
        if label >= len(endings):
            raise UserError(
                f'{record.where} has the label {label} and {len(endings)} endings: mend or remove it.'
            )
    return options, right


def _prompts(config: LmConfig, found: Sequence[Record]) -> list[str]:
    """What stands before the answer of each record."""
    if not config.shots:
        return [_fill(config, record) for record in found]
    one_file = records.is_files(config.source) and '{split}' not in config.source
    if one_file or config.train_split == config.split:
        raise UserError(
            'eval.shots would show the records that are asked for: put {split} into eval.source, and name others as '
            'eval.train_split.'
        )
    shown = records.read(config.source, config.train_split)
    if len(shown) < config.shots:
        raise UserError(
            f'eval.shots={config.shots} is more than the {len(shown)} records of {config.train_split!r}: set it lower.'
        )
    options, right = _options(config, shown)
    prompts = []
    for i, record in enumerate(found):
        drawn = np.random.default_rng((config.seed, i)).choice(len(shown), config.shots, replace=False)
        answered = [_fill(config, shown[j]) + options[j][right[j]] for j in drawn]
        prompts.append(config.between.join([*answered, _fill(config, record)]))
    return prompts


def _fill(config: LmConfig, record: Record) -> str:
    """The template without its answer."""
    template = config.template.removesuffix('{answer}')
    return ''.join(
        text + (record.text(field).strip() if field else '')
        for text, field, _, _ in string.Formatter().parse(template)
    )
