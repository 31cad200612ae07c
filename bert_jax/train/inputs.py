"""Resolve the inputs of a run: tokenizer, rows and initial parameters."""

import contextlib
import dataclasses
import functools
import json
import logging
import operator
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from bert_jax import tasks
from bert_jax.core import buckets, distributed, paths, stacking
from bert_jax.core.errors import UserError
from bert_jax.data import labeled, tokenizer_training
from bert_jax.data import prepare as prepare_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import Rows
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.tasks import Examples
from bert_jax.train import checkpoint
from bert_jax.train import experiment as experiment_lib
from bert_jax.train.experiment import Experiment
from bert_jax.train.state import Layout

ReadParams = Callable[[Layout], dict[str, jax.Array]]


def resolve(experiment: Experiment, workdir: pathlib.Path) -> tuple[Experiment, Tokenizer, ReadParams | None]:
    """Complete an experiment with its tokenizer and the architecture of `init.checkpoint`.

    Returns:
      The complete experiment, the tokenizer, and a function that reads the pretrained parameters, or None for
      random initialization.

    Raises:
      UserError: if `tokenizer.path` is not the tokenizer of the checkpoint, or there is no tokenizer.
    """
    init, task = experiment.init, tasks.get(experiment.task.name).Task
    if hasattr(task, 'check_text'):
        task.check_text(experiment.task, experiment.data)
    if not init.checkpoint:
        if not experiment.tokenizer.path and not isinstance(experiment.data, TextConfig):
            raise UserError(
                'A downstream task needs a tokenizer. Set init.checkpoint to the --workdir of a pretraining run '
                '(with init.weights=random to start from scratch), or set tokenizer.path.'
            )
        tokenizer = tokenizer_training.load_or_train(
            experiment.data,
            experiment.tokenizer,
            rows_folder(experiment, workdir),
            can_replace_rows(experiment, workdir),
        )
        if not experiment.trains_tokenizer:
            experiment = _describe_tokenizer(experiment, tokenizer)
        return experiment_lib.complete(experiment, tokenizer), tokenizer, None
    step, metadata = checkpoint.read_metadata(paths.make_path(init.checkpoint))
    tokenizer = tokenizer_lib.from_json(json.dumps(metadata['tokenizer']))
    tokenizer.source = str(step)
    if experiment.tokenizer.path:
        other = tokenizer_lib.load(experiment.tokenizer.path)
        if other.fingerprint != tokenizer.fingerprint:
            raise UserError(
                f'tokenizer.path={experiment.tokenizer.path!r} ({len(other)} tokens) is not the tokenizer of '
                f'init.checkpoint ({len(tokenizer)} tokens). Leave tokenizer.path empty to use that of the checkpoint.'
            )
    experiment = _describe_tokenizer(experiment, tokenizer)
    experiment = experiment_lib.inherit_model(experiment, metadata['config'])
    completed = experiment_lib.complete(experiment, tokenizer)
    classes = tuple(metadata['config']['task'].get('labels', ()))  # of the checkpoint
    labels = getattr(completed.task, 'labels', ())
    if {*labels} == {*classes} and labels and not experiment.task.labels:
        labels = classes
        completed = dataclasses.replace(completed, task=dataclasses.replace(completed.task, labels=labels))
    if init.weights == 'random':
        return completed, tokenizer, None
    model = completed.model.name
    reinitialized = [f'{model}/token_embedding'] if init.weights == 'reinit_embeddings' else []
    is_same_task = metadata['config']['task']['name'] == completed.task.name
    if not is_same_task or (classes and labels != classes and not labeled.are_placeholders(classes)):
        reinitialized.append('classifier/')
    read_params = functools.partial(_read_pretrained, step, model, tuple(reinitialized))
    return completed, tokenizer, read_params


def _describe_tokenizer(experiment: Experiment, tokenizer: Tokenizer) -> Experiment:
    """Replace the settings of a tokenizer to train, which have no effect, by those of the loaded tokenizer."""
    config = dataclasses.replace(
        experiment.tokenizer,
        kind=tokenizer.kind,
        vocab_size=len(tokenizer),
        max_characters=0,
        lowercase=tokenizer.lowercase,
    )
    return dataclasses.replace(experiment, tokenizer=config)


def _read_pretrained(
    step: pathlib.Path, model: str, reinitialized: tuple[str, ...], layout: Layout
) -> dict[str, jax.Array]:
    """Read the parameters that a checkpoint and the model share, placed according to the layout.

    Heads with other shapes, such as one for another number of classes, and the parameters whose names begin with one of
    `reinitialized`, such as a head for other classes, are not read, so they keep their random initialization.
    """
    stored = layout.abstract.params
    saved, expected = stacking.unstack(checkpoint.read_param_shapes(step)), stacking.unstack(stored)
    sources = {name: found for name in expected if (found := _find_sources(name, saved))}
    shapes = {name: saved[found[0]].shape for name, found in sources.items()}
    reshaped = [n for n, shape in shapes.items() if shape != expected[n].shape]
    for name in reshaped:
        if name.startswith(f'{model}/'):
            raise UserError(
                f'{name} has shape {shapes[name]} in the checkpoint, but {expected[name].shape} in the model. '
                'Remove the overrides of model keys.'
            )
    heads = {name.split('/')[0] for name in reshaped}
    kept = [n for n in expected if not n.startswith(reinitialized)]
    shared = {n: sources[n] for n in kept if n in sources and n.split('/')[0] not in heads}
    if not shared:
        raise UserError(
            f'The model has no parameter of {str(step)!r}. Set init.checkpoint to a checkpoint of the same architecture.'
        )
    placed = {source: expected[name] for name, found in shared.items() for source in found}
    new, unused = _list_modules({*expected} - {*shared}, model), _list_modules({*saved} - {*placed}, model)
    message = 'read %d parameter arrays from %s; randomly initialized: %s; unused: %s'
    logging.info(message, len(shared), step, new, unused)
    # Orbax reads all parameters of a checkpoint. Those that are not used need a sharding that exists on these devices.
    replicated = layout.shardings.step
    abstract = {n: placed[n] if n in placed else saved[n].update(sharding=replicated) for n in saved}
    restored = checkpoint.read_params(step, abstract)
    params = {
        name: functools.reduce(operator.add, map(restored.get, found)) for name, found in shared.items()
    }
    wanted = {path: value for path, value in stored.items() if stacking.layer_paths(path)[0] in shared}
    return stacking.convert_arrays(params, wanted)


def _find_sources(name: str, saved: Mapping[str, Any]) -> list[str]:
    """Return the saved parameters whose sum is the parameter `name`; empty if there are none.

    An embedding may be saved as a base and an offset, and any embedding can be read as a base, see
    `modeling.replaced_tokens.OffsetEmbedding`.
    """
    candidates = [name], [f'{name}/base', f'{name}/delta'], [name.removesuffix('/base')]
    return next((names for names in candidates if saved.keys() >= {*names}), [])


def _list_modules(names: Iterable[str], model: str) -> str:
    """List the modules of parameters: heads such as 'classifier', and parts of the encoder such as 'bert/pooler'."""
    modules = {'/'.join(name.split('/')[: 2 if name.startswith(f'{model}/') else 1]) for name in names}
    return ', '.join(sorted(modules)) or 'none'


def rows_folder(experiment: Experiment, workdir: pathlib.Path) -> pathlib.Path:
    """Return the folder of prepared rows and of the trained tokenizer: data.rows_dir or `rows` in the workdir.

    If that is in a bucket, return the folder of its local copy, see `local_rows`.
    """
    folder = _stored_rows(experiment, workdir)
    if not buckets.is_in_bucket(folder):
        return folder
    return paths.cache_dir() / 'rows' / str(folder).replace('://', '/')


def _stored_rows(experiment: Experiment, workdir: pathlib.Path) -> pathlib.Path:
    rows_dir = getattr(experiment.data, 'rows_dir', '')
    return paths.make_path(rows_dir) if rows_dir else workdir / 'rows'


@contextlib.contextmanager
def local_rows(experiment: Experiment, workdir: pathlib.Path) -> Iterator[None]:
    """Copy tokenizer and rows from a bucket to this machine, since ArrayRecord reads local files only.

    After the `with` block, the lead process copies new ones to the bucket. Without a bucket, nothing is copied.
    """
    stored, local = _stored_rows(experiment, workdir), rows_folder(experiment, workdir)
    if stored == local or not isinstance(experiment.data, TextConfig):
        yield
        return
    with paths.lock_folder(local):
        buckets.download_folder(stored, local)
    try:
        yield
    except UserError as e:  # the rows to change are those in the bucket
        raise type(e)(str(e).replace(str(local), str(stored))) from e
    if distributed.is_lead():
        with paths.lock_folder(local):
            buckets.upload_folder(local, stored)


def can_replace_rows(experiment: Experiment, workdir: pathlib.Path) -> bool:
    """Return whether rows of other settings may be replaced: those in the working directory of a run without a checkpoint."""
    return not getattr(experiment.data, 'rows_dir', '') and not checkpoint.list_saved(workdir)


class TaskRows:
    """Training and validation rows of a task, loaded on first use. Missing rows for pretraining are prepared first."""

    def __init__(self, task: Any, experiment: Experiment, tokenizer: Tokenizer, workdir: pathlib.Path):
        self._task, self._data, self._tokenizer = task, experiment.data, tokenizer
        self._folder = rows_folder(experiment, workdir)
        self._can_replace = can_replace_rows(experiment, workdir)
        self._is_pretraining = isinstance(experiment.data, TextConfig)
        self.lengths = sorted({phase.length for phase in experiment.phases})

    def train(self, length: int, sampling_exponent: float = 1.0) -> Any:
        return self._train(length, sampling_exponent if self._is_pretraining else 1.0)

    @functools.cache  # noqa: B019
    def _train(self, length: int, sampling_exponent: float) -> Any:
        if self._is_pretraining:
            return Rows(self.prepare(length), 'train', sampling_exponent)
        return self._task.train_rows()

    @functools.cache  # noqa: B019
    def validation(self, length: int) -> Examples:
        if self._is_pretraining:
            return Examples(Rows(self.prepare(length), 'validation', mix_corpora=True))
        return self._task.eval_examples()

    def mixture(self, length: int, sampling_exponent: float = 1.0) -> dict[str, float]:
        """Return the share of each named corpus in the training rows; empty without named corpora."""
        names: Sequence[str] = self._data.corpus_names if self._is_pretraining else ()
        if not names:
            return {}
        return dict(zip(names, self.train(length, sampling_exponent).corpus_shares, strict=True))

    def prepare_all(self) -> None:
        """Prepare missing rows of all lengths."""
        for length in self.lengths if self._is_pretraining else ():
            self.prepare(length)

    def folder(self, length: int) -> pathlib.Path:
        """Return the folder of the prepared rows of a length."""
        return self._folder / f'length{length}'

    def prepare(self, length: int, run_shards: Any = None) -> pathlib.Path:
        """Prepare the rows of a length unless they exist, and return their folder. `run_shards`: see `prepare.prepare`."""
        folder = self.folder(length)
        maker = self._task.row_maker(length)
        prepare_lib.prepare(self._data, maker, self._tokenizer, folder, run_shards, self._can_replace)
        return folder
