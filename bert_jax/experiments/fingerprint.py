"""Fingerprints of jobs: everything that determines a job's results, except the code and TFDS data.

A fingerprint is JSON-ready. It identifies files by path, size and hash, not by modification time, so
that it stays the same when working directories and data are copied to the same paths on another
machine.
"""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bert_jax.core import config as config_lib
from bert_jax.core import paths as path_lib
from bert_jax.core.errors import UserError
from bert_jax.data import files as files_lib
from bert_jax.data import formats, sources
from bert_jax.evals import language_model
from bert_jax.train import checkpoint as checkpoint_lib
from bert_jax.train import experiment

# Prefixes of config keys that do not affect the results. init.checkpoint is among them because
# the content of the checkpoint is compared, not its path.
_NO_EFFECT = (*experiment.KEYS_WITHOUT_EFFECT, 'checkpoint.keep', 'data.rows_dir', 'init.checkpoint')
# Prefixes of config keys that an evaluation does not use.
_TRAINING_ONLY = (
    'model',
    'tokenizer',
    'optim',
    'checkpoint',
    'init',
    'train.steps',
    'train.batch_size',
    'train.phases',
    'train.length_buckets',
    'train.packing',
    'train.accumulation_steps',
    'train.eval_every',
)
_MAX_HASHED_BYTES = 1 << 28

Fingerprint = dict[str, Any]


class _File(NamedTuple):
    """Files that a job reads.

    Attributes:
      pattern: path or glob.
      has_hash: whether to compare their content, not only their size.
    """

    pattern: str
    has_hash: bool


class _Checkpoint(NamedTuple):
    """Identity of a checkpoint, and the text that its model was pretrained on."""

    step: int
    hash: str
    text_sources: tuple[str, ...]


def read(config: str, settings: Sequence[str], checkpoint: str = '') -> Fingerprint:
    """Compute the current fingerprint of a job.

    Args:
      config: config file of a training run or an evaluation, also of `eval_lm`, with its argument; for a study,
        `bin/STUDY.py`.
      settings: config overrides `a.b=value`; for a study, its flags `name=value`.
      checkpoint: checkpoint to evaluate or study; empty for a training run.

    Returns:
      A dictionary. `is_training`: whether the job is a training run. `flags`: flags of a study, by name. `configs`:
      complete configs, by the flag of a study that names them; '' for a training run or an evaluation. `checkpoints`:
      path, step and hash of each checkpoint by flag; step and hash are None if it does not exist. `files`: size and hash
      of each file, by path, by the path or glob in the config. The hash is missing for files over 256 MiB and for text to
      pretrain on, of which `prepare` compares the size as well.

    Raises:
      UserError: if a config is invalid.
    """
    flags: dict[str, str] = {}
    paths, files = {'checkpoint': checkpoint}, []
    is_study = config.startswith('bin/')
    is_lm = not is_study and language_model.is_config(config)
    if is_study:
        flags = {name: value for name, _, value in (setting.partition('=') for setting in settings)}
        overrides = tuple(s.removeprefix('config.') for s in settings if s.startswith('config.'))
        configs = {k: _read_config(v, overrides) for k, v in flags.items() if k.endswith('_config')}
        paths |= {k: v for k, v in flags.items() if k == 'control'}
        values = [sources.parse_source(value)[1] for name, value in flags.items() if name not in configs]
        files += [_File(value.replace('{split}', '*'), True) for value in values if value]
    elif is_lm:
        configs = {'': {'eval': config_lib.as_dict(language_model.read_config(config, settings))}}
    else:
        configs = {'': _read_config(config, tuple(settings))}
        paths['checkpoint'] = checkpoint or configs['']['init']['checkpoint']
    checkpoints = {name: _read_checkpoint(path) for name, path in paths.items()}
    for sections in configs.values():
        files += _data_files(sections, is_training=not checkpoint)
    if is_study or is_lm:  # it may read the text that was held out from pretraining
        files += [file for found in checkpoints.values() if found for file in _text_files(found.text_sources)]
    return {
        'is_training': not checkpoint,
        'flags': flags,
        'configs': configs,
        'checkpoints': {
            name: {'path': path, 'step': found and found.step, 'hash': found and found.hash}
            for (name, path), found in zip(paths.items(), checkpoints.values(), strict=True)
        },
        'files': {file.pattern: found for file in files if (found := _describe_files(file))},
    }


def describe_changes(before: Mapping[str, Any], now: Fingerprint) -> list[str]:
    """Describe what differs between two fingerprints of a job, one phrase for each difference.

    Files and checkpoints that do not exist now count as unchanged, since results may be copied without them.
    """
    if not isinstance(before, dict) or not before.keys() >= now.keys():
        return ['it is unknown what its result was computed from']
    ignored = _NO_EFFECT if now['is_training'] else (*_NO_EFFECT, *_TRAINING_ONLY)
    changes = experiment.describe_changes(before['flags'], now['flags'])
    for name, config in now['configs'].items():
        earlier = before['configs'].get(name)
        if earlier != config:
            earlier = language_model.add_defaults(earlier) or experiment.add_defaults(earlier)
        prefix = f'{name}: ' if name else ''
        changes += [prefix + change for change in experiment.describe_changes(earlier, config, ignored)]
    for name, found in now['checkpoints'].items():
        changes += _describe_checkpoint_change(name, before['checkpoints'].get(name, {}), found)
    for pattern, found in now['files'].items():
        if earlier := before['files'].get(pattern):
            different = [f for f in sorted({*earlier, *found}) if earlier.get(f) != found.get(f)]
            changes += [f'the file {f} has changed' for f in different]
    return changes


def _describe_checkpoint_change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if now['step'] is None and before.get('path') == now['path']:
        return []
    old, new = (
        x.get('path') or 'none' if x.get('step') is None else f'step {x["step"]} of {x["path"]}'
        for x in (before, now)
    )
    if before.get('step') != now['step'] or now['step'] is None:
        return [f'the {name} was {old}, is {new}']
    return [] if before['hash'] == now['hash'] else [f'the {name}, {new}, has been replaced']


def _time_modified(file: str | pathlib.Path) -> float:
    """Return the time of the last change of a file; 0 if it does not exist."""
    try:
        return os.path.getmtime(file)
    except OSError:
        return 0.0


def _read_config(spec: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    return json.loads(_read_unchanged_config(spec, overrides, _time_modified(spec.partition(':')[0])))


@functools.lru_cache(maxsize=4096)
def _read_unchanged_config(spec: str, overrides: tuple[str, ...], modified: float) -> str:
    return json.dumps(experiment.read(spec, overrides).as_dict())


def _read_checkpoint(path: str) -> _Checkpoint | None:
    """Identify the newest checkpoint at `path`; None if there is none."""
    if not path:
        return None
    steps = checkpoint_lib.list_steps(path_lib.make_path(path))
    return _read_unchanged_checkpoint(
        path, tuple((s, _time_modified(s / 'metadata/metadata')) for s in steps)
    )


@functools.lru_cache(maxsize=256)
def _read_unchanged_checkpoint(path: str, modified: tuple[Any, ...]) -> _Checkpoint | None:
    try:
        step, metadata = checkpoint_lib.read_metadata(path_lib.make_path(path))
    except UserError:
        return None
    text_sources = tuple(metadata['config']['data'].get('sources', ()))
    return _Checkpoint(metadata['step'], checkpoint_lib.content_hash(step, metadata), text_sources)


def _data_files(config: Mapping[str, Any], is_training: bool) -> Iterator[_File]:
    """Yield the files of data and tokenizer that a training run or an evaluation reads."""
    if 'eval' in config:  # of eval_lm
        source, split = config['eval']['source'], config['eval']['split']
        if formats.is_path(source):
            yield _File(source.replace('{split}', split), True)
        return
    data, tokenizer = config['data'], config['tokenizer']['path']
    yield from _text_files(data.get('sources', ()))
    if formats.is_path(data.get('source', '')):
        for split in ('train_split', 'eval_split') if is_training else ('eval_split',):
            yield _File(data['source'].replace('{split}', data[split]), True)
    if tokenizer and is_training:
        yield from (_File(name, True) for name in (tokenizer, f'{tokenizer}/*.json', f'{tokenizer}/*.txt'))
    if segmenter := config['task'].get('segmenter'):
        yield _File(segmenter, True)


def _text_files(names: Sequence[str]) -> list[_File]:
    return [_File(sources.parse_source(name)[1], has_hash=False) for name in names]


def _describe_files(file: _File) -> dict[str, str]:
    """Return size and hash by path; empty if there are no such files, as for the name of a TFDS data set."""
    found = {}
    for path in files_lib.find_files(file.pattern):
        status = os.stat(path)
        found[path] = f'{status.st_size} bytes'
        if file.has_hash and status.st_size <= _MAX_HASHED_BYTES:
            found[path] += f', {_hash_file(path, status.st_size, status.st_mtime_ns)}'
    return found


@functools.lru_cache(maxsize=4096)
def _hash_file(file: str, size: int, modified: int) -> str:
    with open(file, 'rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()[:16]
