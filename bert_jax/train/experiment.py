"""Sections of a config as dataclasses, and checks across sections."""

import contextlib
import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from bert_jax import modeling, tasks
from bert_jax.core import config as config_lib
from bert_jax.core import metrics
from bert_jax.core.cadence import check_durations, duration_to_steps
from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.core.metric_writers import WRITERS
from bert_jax.core.partitioning import MeshConfig
from bert_jax.data import tokenizer_training
from bert_jax.data.fake_language import FakeLanguageTokenizer
from bert_jax.data.labeled import DataConfig
from bert_jax.data.prepare import TextConfig
from bert_jax.data.tokenizer import Tokenizer, TokenizerConfig
from bert_jax.optim import OptimConfig

# Model keys that a run may set when it starts from a checkpoint. All others are the architecture of the checkpoint.
RUNTIME_KEYS = ('dtype', 'attention_implementation', 'scan_layers', 'remat', 'dropout', 'attention_dropout')
# Prefixes of keys that do not affect the results of a run.
KEYS_WITHOUT_EFFECT = (
    'mesh',
    'train.log_every',
    'train.writers',
    'train.workers',
    'train.profile_steps',
    'model.attention_implementation',
    'model.scan_layers',
    'model.remat',
    'data.workers',
)
# Beginnings of the keys that may change between the phases of a run. Others would change the rows or the parameters.
PHASE_KEYS = (
    'task.',
    'data.sampling_exponent',
    'model.rope_base',
    'model.local_rope_base',
    'model.window',
    'model.dropout',
    'model.attention_dropout',
)


class PhaseConfig(NamedTuple):
    """One entry of `train.phases`.

    Attributes:
      duration: number of steps, or a duration such as '5e6 examples'.
      length: number of tokens in a row.
      batch_size: number of rows in the global batch.
      settings: `section.key=value` settings that apply in this phase only, of the keys in `PHASE_KEYS`.
    """

    duration: int | float | str
    length: int
    batch_size: int
    settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of the run, batches, logging and evaluation.

    Attributes:
      steps: duration of the run: steps, '3 epochs' or '5e6 examples'.
      batch_size: number of rows in the global batch, over all devices and hosts; with packing, the number of texts.
      phases: consecutive phases, each (steps, length, batch size). Replaces steps, batch_size and data.length. Devlin et
        al. 2019, appendix A.2: 900k steps of length 128, then 100k of 512. After the three numbers, a phase may list
        settings that apply in it alone, such as 'task.mask_rate=0.15': those of the task, data.sampling_exponent,
        model.rope_base, local_rope_base, window, dropout and attention_dropout. The steps may be a duration such as
        '5e6 examples'.
      length_buckets: largest number of different batch lengths, each of which is compiled; 1 uses only the full length.
        With more, rows of similar length share a batch, which is cut to the shortest length that fits them. Only
        applies to rows in memory, as in downstream tasks.
      packing: whether the texts of a batch share rows, without attention between them; only in downstream tasks. The
        losses and predictions are those of one text a row, and `length_buckets` limits the different lengths of packed
        rows. 'auto' packs on accelerators and groups rows of similar length on CPUs. A run keeps what it began with.
      workers: number of processes that prepare batches; 0 uses a thread of the training process, which is enough to
        train on CPUs.
      accumulation_steps: number of parts into which a batch is split to save memory; their gradients are summed.
      seed: seed of initialization, data order, noise and dropout.
      prng: generator of the random bits of dropout. 'threefry' draws the same bits on all devices and meshes. 'rbg' is
        the generator of the hardware, which is cheaper on TPUs and GPUs; its bits depend on the device and the mesh.
      log_every: duration between two lines of metrics.
      writers: writers of metrics in addition to `metrics.jsonl`: 'tensorboard', 'wandb' (Weights & Biases) and 'trackio'.
      eval_every: duration between two evaluations; 0 evaluates only at the end.
      eval_batch_size: number of rows in an evaluation batch; with packing, the number of texts.
      eval_rows: maximum number of rows to evaluate on; 0 uses all.
      profile_steps: first and last step of a profiler trace, written to `profile` in the working directory, for
        TensorBoard and XProf; empty writes none.
    """

    steps: int | float | str = 1000
    batch_size: int = 32
    phases: tuple[tuple[int | str, ...], ...] = ()
    length_buckets: int = 8
    packing: Literal['auto', 'on', 'off'] = 'auto'
    workers: int = 0
    accumulation_steps: int = 1
    seed: int = 0
    prng: Literal['threefry', 'rbg'] = 'threefry'
    log_every: int | float | str = 10
    writers: tuple[str, ...] = ('tensorboard',)
    eval_every: int | float | str = 0.2
    eval_batch_size: int = 32
    eval_rows: int = 0
    profile_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        first, last = self.profile_steps if len(self.profile_steps) == 2 else (0, 0)
        if self.profile_steps and not 0 < first <= last:
            raise UserError(
                f'train.profile_steps={self.profile_steps} is not a range of steps. Set it to, for example, (100,105).'
            )
        for writer in self.writers:
            if writer not in WRITERS:
                raise UserError(
                    f'train.writers contains {writer!r}: {config_lib.did_you_mean(writer, WRITERS)}'
                )
        check_durations(self, 'train', 'steps', 'log_every', 'eval_every')
        if not duration_to_steps(self.steps, batch_size=1, examples=1):
            raise UserError(
                f'train.steps={self.steps!r} is less than one step. Set a number of steps, or "3 epochs".'
            )
        check_range(self, 'train', 1, math.inf, 'batch_size', 'eval_batch_size')
        check_range(self, 'train', 1, math.inf, 'length_buckets', 'accumulation_steps')
        check_range(self, 'train', 0, math.inf, 'eval_rows', 'workers')
        check_range(self, 'train', 0, 2**32 - 1, 'seed')
        for phase in self.phases:
            _check_phase(phase)


def _check_phase(phase: tuple[Any, ...]) -> None:
    """Raise UserError if an entry of `train.phases` is not (steps, length, batch size, *settings)."""
    duration, sizes, settings = phase[:1], phase[1:3], phase[3:]
    try:
        steps = [duration_to_steps(d, batch_size=1, examples=1) for d in duration]
    except UserError as e:
        raise UserError(f'train.phases contains {phase}: {e}') from e
    numbers = [*steps, *(size if isinstance(size, int) else 0 for size in sizes)]
    if len(numbers) != 3 or min(numbers) < 1 or not all('=' in str(setting) for setting in settings):
        raise UserError(
            f'train.phases contains {phase}. Each phase must be (steps, length, batch size), all at least 1, with '
            'settings such as "task.mask_rate=0.3" after them.'
        )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save checkpoints and which to keep.

    Attributes:
      every: duration between two checkpoints; 0 saves only the last step, which is always saved.
      keep: number of most recent checkpoints to keep.
      best_metric: score, such as 'accuracy', whose best checkpoint is kept as well; empty for none. To know the score,
        the model is evaluated before each checkpoint is saved.
      best_mode: whether higher ('max') or lower ('min') scores are better; empty decides by the name of the score.
    """

    every: int | float | str = 0.2
    keep: int = 2
    best_metric: str = ''
    best_mode: Literal['', 'max', 'min'] = ''

    def __post_init__(self) -> None:
        check_durations(self, 'checkpoint', 'every')

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of `best_metric` is better."""
        return self.best_mode == 'min' or (not self.best_mode and metrics.is_lower_better(self.best_metric))


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Initial parameters.

    Attributes:
      checkpoint: working directory or folder of a step that provides architecture and tokenizer; empty starts from
        scratch.
      weights: parameters to take from the checkpoint: all ('pretrained'), all but the token embeddings
        ('reinit_embeddings'), or none ('random'), the baseline that shows the benefit of pretraining.
    """

    checkpoint: str = ''
    weights: Literal['pretrained', 'reinit_embeddings', 'random'] = 'pretrained'


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All sections of a config, validated."""

    task: Any
    data: Any
    model: Any
    tokenizer: TokenizerConfig
    optim: OptimConfig
    train: TrainConfig
    mesh: MeshConfig
    checkpoint: CheckpointConfig
    init: InitConfig

    def __post_init__(self) -> None:
        if self.train.phases and not isinstance(self.data, TextConfig):
            raise UserError(
                f'train.phases has no effect on the row lengths of task.name={self.task.name}, which is not pretraining. '
                'Set train.phases="()", train.steps, train.batch_size and data.length.'
            )

    @property
    def phases(self) -> Sequence[PhaseConfig]:
        """The phases of the run: `train.phases`, or one phase of `train.steps`."""
        train: Any = self.train
        if not train.phases:
            return (PhaseConfig(train.steps, self.data.length, train.batch_size, ()),)
        return tuple(PhaseConfig(steps, n, b, tuple(settings)) for steps, n, b, *settings in train.phases)

    def in_phase(self, settings: Sequence[str]) -> 'Experiment':
        """Return the config of a phase with these settings.

        Raises:
          UserError: if a key is unknown or must not change between phases, or a value is invalid.
        """
        if not settings:
            return self
        for key in (setting.partition('=')[0] for setting in settings):
            if not key.startswith(PHASE_KEYS) or key == 'task.name':
                raise UserError(
                    f'train.phases cannot change {key} within a run. It can change task settings, '
                    f'{", ".join(PHASE_KEYS[1:])}.'
                )
        names = dict.fromkeys(setting.partition('.')[0] for setting in settings)
        full = ConfigDict()
        for name in names:
            full[name] = ConfigDict(vars(getattr(self, name)), convert_dict=False)
        config_lib.override(full, settings)
        sections = {
            name: config_lib.build_section(type(getattr(self, name)), full[name], name) for name in names
        }
        return dataclasses.replace(self, **sections)

    @property
    def trains_tokenizer(self) -> bool:
        """Whether the run trains its tokenizer, or finds it with its rows, instead of loading one."""
        return isinstance(self.data, TextConfig) and not self.init.checkpoint and not self.tokenizer.path

    def check_length(self, length: int) -> None:
        """Raise UserError with the settings that fit if rows of `length` tokens exceed the positions of the model."""
        longest = self.model.longest_row
        if length > longest and isinstance(self.data, DataConfig):
            changes = ', '.join(f'data.{k} to {v}' for k, v in self.data.settings_for_length(longest).items())
            self.model.check_length(length, changes)
        self.model.check_length(length)

    def check_splits(self) -> None:
        """Raise UserError if a downstream task would be trained and evaluated on the same examples."""
        if isinstance(self.data, DataConfig):
            self.data.check_splits()

    def as_dict(self) -> dict[str, Any]:
        sections = config_lib.as_dict(self)
        return sections | {'model': {'name': self.model.name, **sections['model']}}

    def make_task(self, tokenizer: Tokenizer) -> Any:
        """Create the task with this tokenizer.

        Raises:
          UserError: if the task does not train such a model, or its settings cannot work.
        """
        task = tasks.get(self.task.name).Task
        if (models := getattr(task, 'models', ())) and self.model.name not in models:
            raise UserError(
                f'task.name={self.task.name} needs model.name={models[0]}, not {self.model.name}. Set model.name={models[0]}, '
                'or another task.name.'
            )
        if fake := getattr(self.data, 'fake_language', ''):
            if self.model.vocab_size < 2 * len(tokenizer):
                raise UserError(
                    f'data.fake_language={fake} needs a model that was pretrained with task.name=bilingual. '
                    'Set init.checkpoint to one, or data.fake_language to "".'
                )
            tokenizer = FakeLanguageTokenizer(tokenizer, fake == 'shared')
        return task(self.task, self.data, tokenizer)


def read(spec: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a config file (`FILE.py` or `FILE.py:arg`) and `a.b=value` overrides."""
    experiment = from_config(config_lib.load(spec), overrides)
    for key in (override.split('=')[0] for override in overrides):
        if experiment.train.phases and key in ('train.steps', 'train.batch_size', 'data.length'):
            raise UserError(
                f'{key} has no effect with train.phases, which sets (steps, length, batch size). Set '
                '--config.train.phases="((1000, 128, 32),)" instead, or "()" for no phases.'
            )
    return experiment


def is_architecture(key: str) -> bool:
    """Return whether a key or an override `a.b=value` is part of the architecture, which a checkpoint defines."""
    section, _, name = key.partition('=')[0].partition('.')
    return section == 'model' and name not in ('name', *RUNTIME_KEYS)


def from_config(values: Mapping[str, Any], overrides: Sequence[str] = ()) -> Experiment:
    """Validate a config, fill in defaults and apply overrides.

    Raises:
      UserError: for an unknown section or key (the message names the closest one), or an invalid value.
    """
    config = ConfigDict(values)
    classes: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Experiment)}
    for key in config:
        if key not in classes:
            raise UserError(f'Unknown config section {key!r}: {config_lib.did_you_mean(key, classes)}')
        if config[key] is not None and not isinstance(config[key], ConfigDict | Mapping):
            raise UserError(
                f'The config sets {key} to {config[key]!r}. Set it to a section, which is a dict of its keys.'
            )
    for key in ('task', 'model'):
        if not isinstance((config.get(key) or {}).get('name'), str):
            raise UserError(f'The config does not set {key}.name to a name. Set it.')
    for override in overrides:  # these two determine the valid keys
        for key in ('task', 'model'):
            if override.startswith(f'{key}.name='):
                config[key].name = override.split('=', 1)[1]
    task = tasks.get(config.task.name)
    classes |= {'task': task.Config, 'data': task.Task.Data, 'model': _model_config(config.model.name)}
    full = ConfigDict()
    for name, cls in classes.items():
        fields = dataclasses.fields(cls)
        defaults = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
        full[name] = ConfigDict({**defaults, **(config.get(name) or {})}, convert_dict=False)
    config_lib.override(full, overrides)
    for key in (override.split('=')[0] for override in overrides):
        if full.init.checkpoint and is_architecture(key):
            raise UserError(
                f'{key} is part of the architecture, which init.checkpoint defines. Remove one of the two.'
            )
    del full.model['name']
    return Experiment(
        **{name: config_lib.build_section(cls, full[name], name) for name, cls in classes.items()}
    )


def _model_config(name: str) -> type:
    """Return the `Config` class of `modeling/NAME.py`."""
    known = [m.name for m in pkgutil.iter_modules(modeling.__path__)]
    module = importlib.import_module(f'bert_jax.modeling.{name}') if name in known else None
    if not hasattr(module, 'Config'):
        models = [n for n in known if hasattr(importlib.import_module(f'bert_jax.modeling.{n}'), 'Config')]
        raise UserError(f'Unknown model {name!r}: {config_lib.did_you_mean(name, models)}')
    return module.Config  # type: ignore[union-attr]


def inherit_model(experiment: Experiment, saved: Mapping[str, Any]) -> Experiment:
    """Replace the model of an experiment by the one in the config of a checkpoint, but keep the `RUNTIME_KEYS`."""
    ours = {k: v for k, v in vars(experiment.model).items() if k in RUNTIME_KEYS}
    theirs = {k: v for k, v in saved['model'].items() if k != 'name'}
    model = config_lib.build_section(_model_config(saved['model']['name']), {**theirs, **ours}, 'model')
    return dataclasses.replace(experiment, model=model)


def complete(experiment: Experiment, tokenizer: Tokenizer) -> Experiment:
    """Fill in values that depend on the tokenizer, the data and the task: vocabulary size, class names, pooling.

    Raises:
      UserError: if the vocabulary of the model is smaller than that of the tokenizer and the task.
    """
    model, task, cls = experiment.model, experiment.task, tasks.get(experiment.task.name).Task
    extra = cls.num_extra_tokens(task, tokenizer) if hasattr(cls, 'num_extra_tokens') else 0
    if not model.vocab_size:
        model = dataclasses.replace(model, vocab_size=len(tokenizer) + extra)
    if extra and model.vocab_size < len(tokenizer) + extra:
        setting = f'task.noise={",".join(task.noise)}' if hasattr(task, 'noise') else f'task.name={task.name}'
        raise UserError(
            f'The vocabulary of the model has {model.vocab_size} tokens, but {setting} needs {len(tokenizer) + extra}: '
            f'{extra} in addition to the tokenizer. Set model.vocab_size=0, or init.checkpoint to a model that was '
            f'pretrained with {setting}.'
        )
    if model.vocab_size < len(tokenizer):
        raise UserError(
            f'The vocabulary of the model has {model.vocab_size} tokens, but that of the tokenizer has {len(tokenizer)}. '
            'Use the tokenizer that the model was pretrained with, or set model.vocab_size=0 to use the size of the tokenizer.'
        )
    if issubclass(cls, tasks.Pooled) and task.pooling:
        if not hasattr(model, 'pooling'):
            raise UserError(
                f'task.pooling={task.pooling!r} needs a BERT. Remove it, or start from another model.'
            )
        model = dataclasses.replace(model, pooling=task.pooling)
    if hasattr(cls, 'complete_config'):
        task = cls.complete_config(task, experiment.data)
    return dataclasses.replace(experiment, model=model, task=task)


def preview(experiment: Experiment) -> tuple[Experiment, Tokenizer]:
    """Complete an experiment before its tokenizer is trained, to check it with a tokenizer of made-up words."""
    tokenizer = tokenizer_training.placeholder(experiment.tokenizer)
    # A vocabulary of fewer words is large enough if the text is too short for more.
    model = dataclasses.replace(experiment.model, vocab_size=0)
    return complete(dataclasses.replace(experiment, model=model), tokenizer), tokenizer


def add_defaults(saved: Any) -> Any:
    """Add the defaults of newer settings to a saved config; return an invalid config unchanged."""
    with contextlib.suppress(UserError, AttributeError):
        return from_config(saved).as_dict()
    return saved


def describe_changes(before: Any, now: Any, ignored: Sequence[str] = ()) -> list[str]:
    """Describe how the values of a config have changed, as in 'train.steps was 5, is 6'.

    Args:
      before: JSON-ready config.
      now: the same config at a later time.
      ignored: prefixes of keys to leave out.
    """

    def compare(a: Any, b: Any, path: str = '') -> Iterator[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted({*a, *b}):
                yield from compare(a.get(key), b.get(key), f'{path}.{key}'.lstrip('.'))
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and _has_lists(a):
            for i, pair in enumerate(zip(a, b, strict=True)):
                yield from compare(*pair, f'{path}[{i}]')
        elif a != b and not path.startswith(tuple(ignored)):
            yield f'{path} was {_shorten(a)}, is {_shorten(b)}'

    return [*compare(before, now)]


def _has_lists(values: Sequence[Any]) -> bool:
    return any(isinstance(value, list) for value in values)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
