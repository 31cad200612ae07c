"""A config made into objects: sections, tokenizer, task and model."""

import contextlib
import dataclasses
import importlib
import json
import math
import pathlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ml_collections import ConfigDict

from bert_jax import modeling, tasks
from bert_jax.core import config as config_lib
from bert_jax.core import metrics, paths
from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.core.partitioning import MeshConfig
from bert_jax.data.fake_language import DisguisedTokenizer
from bert_jax.data.tokenizer import Tokenizer, TokenizerConfig
from bert_jax.optim import OptimConfig

# Keys of a model that are choices of a run; all others are its architecture.
RUN_CHOICES = ('dtype', 'attention', 'scan', 'remat', 'dropout', 'attention_dropout')
# Keys that may change between one start and the next in a working directory.
FREE = (
    'mesh',
    'checkpoint',
    'train.log_every',
    'train.eval_every',
    'train.workers',
    'train.profile',
    'model.attention',
    'model.scan',
    'model.remat',
    'data.workers',
)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The course of a run.

    Attributes:
      steps: how long, as a duration: steps, '3 epochs' or '5e6 examples'.
      batch_size: rows in the global batch, over all devices and hosts.
      phases: lengths in turn, each (steps, length, batch size); replaces steps, batch_size and
        data.length. Devlin et al. 2019, appendix A.2: 900k steps at 128, then 100k at 512.
      bins: rows that are in memory, as those of a downstream task, go into batches of like length,
        which are cut to the shortest of so many lengths that holds them; 1 keeps the full length.
      workers: processes that make batches; 0 is a thread of the training process, which is enough for CPU cores.
      accumulate: a batch is split into so many parts whose gradients are summed.
      seed: of initialisation, order, noise and dropout.
      log_every: a duration between lines of metrics.
      eval_every: a duration between evaluations; 0 evaluates at the end alone.
      eval_batch_size: rows in an evaluation batch.
      eval_rows: evaluate on the first so many rows; 0 takes all.
      profile: (first, last): the trace of these steps goes to `profile` in the working directory, for TensorBoard and XProf.
    """

    steps: int | float | str = 1000
    batch_size: int = 32
    phases: tuple[tuple[int, ...], ...] = ()
    bins: int = 8
    workers: int = 0
    accumulate: int = 1
    seed: int = 0
    log_every: int | float | str = 10
    eval_every: int | float | str = 0.2
    eval_batch_size: int = 32
    eval_rows: int = 0
    profile: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.profile and (len(self.profile) != 2 or not 0 < self.profile[0] <= self.profile[1]):
            raise UserError(f'train.profile={self.profile} is no range of steps: write (100,105).')
        within(self, 'train', 1, math.inf, 'batch_size', 'bins', 'accumulate', 'eval_batch_size')
        within(self, 'train', 0, math.inf, 'eval_rows', 'workers')
        within(self, 'train', 0, 2**32 - 1, 'seed')
        for phase in self.phases:
            if len(phase) != 3 or min(phase) < 1:
                raise UserError(f'train.phases has {phase}: each phase is (steps, length, batch size).')


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What is saved.

    Attributes:
      every: a duration between checkpoints; one more is saved at the end.
      keep: the newest so many are kept.
      best: the score by which the best is kept as well, such as 'accuracy'; empty keeps none.
      best_mode: whether a larger or a smaller score is better; empty goes by its name.
    """

    every: int | float | str = 0.2
    keep: int = 2
    best: str = ''
    best_mode: Literal['', 'max', 'min'] = ''

    @property
    def lowest(self) -> bool:
        """Whether the best score is the lowest."""
        return self.best_mode == 'min' or (not self.best_mode and metrics.is_loss(self.best))


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Where a model begins.

    Attributes:
      checkpoint: a working directory or a step of one, whose architecture and tokenizer are taken.
      weights: take its parameters too, or draw random ones: the comparison that shows what
        pretraining is worth; 'body' takes all but the vectors of words.
    """

    checkpoint: str = ''
    weights: Literal['pretrained', 'body', 'random'] = 'pretrained'


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All sections of a config, checked; what a door works from."""

    task: Any
    data: Any
    model: Any
    tokenizer: TokenizerConfig
    optim: OptimConfig
    train: TrainConfig
    mesh: MeshConfig
    checkpoint: CheckpointConfig
    init: InitConfig

    def as_dict(self) -> dict[str, Any]:
        named = {'model': {'name': self.model.name}}
        sections = {k: config_lib.as_dict(v) for k, v in vars(self).items()}
        return {k: {**named.get(k, {}), **v} for k, v in sections.items()}

    def make_task(self, tokenizer: Tokenizer) -> Any:
        """The task, which reads texts by this tokenizer."""
        if fake := getattr(self.data, 'fake', ''):
            if self.model.vocab_size < 2 * len(tokenizer):
                raise UserError(
                    f'data.fake={fake} is for models that were pretrained on the task bilingual, which this one was not.'
                )
            tokenizer = DisguisedTokenizer(tokenizer, fake == 'shared')
        return tasks.get(self.task.name).Task(self.task, self.data, tokenizer)


_COMMON = {
    'tokenizer': TokenizerConfig,
    'optim': OptimConfig,
    'train': TrainConfig,
    'mesh': MeshConfig,
    'checkpoint': CheckpointConfig,
    'init': InitConfig,
}


def read(spec: str, overrides: Sequence[str] = ()) -> Experiment:
    """An experiment from a config file (`FILE.py` or `FILE.py:arg`) and `a.b=value` overrides."""
    experiment = from_config(config_lib.load(spec), overrides)
    for key in (override.split('=')[0] for override in overrides):
        section, _, name = key.partition('.')
        if experiment.init.checkpoint and section == 'model' and name not in ('name', *RUN_CHOICES):
            raise UserError(f'{key} cannot be set beside init.checkpoint, which brings its own architecture.')
        if experiment.train.phases and key in ('train.steps', 'train.batch_size', 'data.length'):
            raise UserError(
                f'{key} cannot be set beside train.phases, which has (steps, length, batch size): give '
                '--config.train.phases="((1000, 128, 32),)", or "()" for none.'
            )
    return experiment


def from_config(given: Mapping[str, Any], overrides: Sequence[str] = ()) -> Experiment:
    """Checks every key, fills in defaults, applies overrides.

    Raises:
      UserError: for an unknown section or key, naming the nearest, or a wrong value.
    """
    config = ConfigDict(given)
    sections = ['task', 'data', 'model', *_COMMON]
    for key in config:
        if key not in sections:
            raise UserError(f'Unknown config section {key!r}: {config_lib.nearest(key, sections)}')
    for key in ('task', 'model'):
        if key not in config or 'name' not in config[key]:
            raise UserError(f'The config needs {key}.name.')
    for override in overrides:  # these two decide which keys there are
        for key in ('task', 'model'):
            if override.startswith(f'{key}.name='):
                config[key].name = override.split('=', 1)[1]
    task = tasks.get(config.task.name)
    classes = {
        'task': task.Config,
        'data': task.Task.Data,
        'model': _model_config(config.model.name),
        **_COMMON,
    }
    full = ConfigDict()
    for name, cls in classes.items():
        values = dict(config.get(name) or {})
        model_name = {'name': values.pop('name')} if name == 'model' else {}
        config_lib.section(cls, values, name)  # unknown keys die here, before they could be set
        full[name] = ConfigDict({**model_name, **_defaults(cls), **values}, convert_dict=False)
    config_lib.override(full, overrides)
    del full.model['name']
    return Experiment(**{name: config_lib.section(cls, full[name], name) for name, cls in classes.items()})


def _defaults(cls: type) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def _model_config(name: str) -> type:
    """The `Config` of `modeling/NAME.py`."""
    known = [m.name for m in pkgutil.iter_modules(modeling.__path__)]
    module = importlib.import_module(f'bert_jax.modeling.{name}') if name in known else None
    if not hasattr(module, 'Config'):
        models = [n for n in known if hasattr(importlib.import_module(f'bert_jax.modeling.{n}'), 'Config')]
        raise UserError(f'There is no model {name!r}: {config_lib.nearest(name, models)}')
    return module.Config  # type: ignore[union-attr]


def inherit_model(experiment: Experiment, saved: Mapping[str, Any]) -> Experiment:
    """The experiment with the architecture of a checkpoint's config and run choices of its own."""
    ours = {k: v for k, v in vars(experiment.model).items() if k in RUN_CHOICES}
    theirs = {k: v for k, v in saved['model'].items() if k != 'name'}
    model = config_lib.section(_model_config(saved['model']['name']), {**theirs, **ours}, 'model')
    return dataclasses.replace(experiment, model=model)


def complete(experiment: Experiment, tokenizer: Tokenizer) -> Experiment:
    """Fills in what only the tokenizer and the data know: vocabulary size, names of classes.

    Raises:
      UserError: if the model's vocabulary is not the tokenizer's.
    """
    model = experiment.model
    if not model.vocab_size:
        more = getattr(tasks.get(experiment.task.name).Task, 'extra_tokens', lambda *_: 0)
        extra = more(experiment.task, tokenizer)
        model = dataclasses.replace(model, vocab_size=len(tokenizer) + extra)
    if model.vocab_size < len(tokenizer):
        raise UserError(
            f'The model has a vocabulary of {model.vocab_size} but the tokenizer one of {len(tokenizer)}: '
            'use the tokenizer that the model was pretrained with, or leave model.vocab_size at 0.'
        )
    task = experiment.task
    fill = getattr(tasks.get(task.name).Task, 'complete', None)
    return dataclasses.replace(experiment, model=model, task=fill(task, experiment.data) if fill else task)


def with_defaults(kept: Any) -> Any:
    """A kept config with the defaults of settings that are new since then; as it is if it cannot be read."""
    with contextlib.suppress(UserError, AttributeError):
        return from_config(kept).as_dict()
    return kept


def claim(workdir: pathlib.Path, experiment: Experiment) -> None:
    """Writes `config.json` into a working directory, or checks that it is this experiment's if it has begun.

    Raises:
      UserError: if the directory cannot be written, or another config made it.
    """
    file = workdir / 'config.json'
    now = experiment.as_dict()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if file.is_file() and any((workdir / name).exists() for name in ('metrics.jsonl', 'checkpoints')):
            before = with_defaults(json.loads(file.read_text()))
            for key, old, new in _differences(before, now):
                if not key.startswith(FREE):
                    raise UserError(
                        f'{str(workdir)!r} was made by another config ({key} was {old!r}, now {new!r}): '
                        'choose another --workdir, or set it back to resume.'
                    )
        paths.write(file, config_lib.to_json(now))
    except json.JSONDecodeError as e:
        raise UserError(f'{str(file)!r} is damaged: choose another --workdir.') from e
    except OSError as e:
        raise UserError(
            f'{str(workdir)!r} cannot be written ({e.strerror}): choose another --workdir.'
        ) from e


def _differences(a: Any, b: Any, path: str = '') -> list[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            d for k in sorted({*a, *b}) for d in _differences(a.get(k), b.get(k), f'{path}.{k}'.lstrip('.'))
        ]
    return [] if a == b else [(path, a, b)]
