"""The record of a run, `run.json` in its working directory: what it was made from, and each of its starts.

The keys of the record are:
  tokenizer: kind, case, size, fingerprint and source of the tokenizer.
  data: files with their sizes, or TFDS data sets with their versions.
  segmenter: source of `task.segmenter`, and the version of jieba or a hash of the words; null without one.
  init: path, step and hash of `init.checkpoint`; null without one.
  starts: for each start, the step, the command, the versions of packages, and the devices.

Together with `config.json`, which `--config` accepts, it is enough to repeat the run.
"""

import dataclasses
import datetime
import json
import logging
import pathlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from bert_jax.core import paths
from bert_jax.core.environment import describe_process
from bert_jax.core.errors import UserError
from bert_jax.data import provenance, segmentation, sources
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import read_manifest
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.train import checkpoint
from bert_jax.train.experiment import Experiment

FILE = 'run.json'


def describe(experiment: Experiment, tokenizer: Tokenizer, rows: pathlib.Path) -> dict[str, Any]:
    """Describe what a run is made from: its record without the starts.

    Args:
      experiment: complete config.
      tokenizer: tokenizer of the run.
      rows: folder of the prepared rows of a pretraining run.
    """
    data, init = experiment.data, None
    if isinstance(data, TextConfig):
        found = read_manifest(rows)['data']  # the text may be elsewhere
    else:
        found = provenance.describe_labeled(data.source, (data.train_split, data.eval_split))
    if experiment.init.checkpoint:
        step, metadata = checkpoint.read_metadata(paths.make_path(experiment.init.checkpoint))
        init = {'path': str(step), 'step': metadata['step'], 'hash': checkpoint.content_hash(step, metadata)}
    return {
        'tokenizer': provenance.describe_tokenizer(tokenizer),
        'data': found,
        'segmenter': _describe_segmenter(experiment),
        'init': init,
    }


def _describe_segmenter(experiment: Experiment) -> dict[str, str] | None:
    segmenter = segmentation.make(getattr(experiment.task, 'segmenter', ''))
    return dataclasses.asdict(segmenter) if segmenter else None


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """Read the record of a run; empty if it is missing or damaged."""
    try:
        return paths.read_json(workdir / FILE)
    except (OSError, ValueError):
        return {}


def _is_complete(content: Mapping[str, Any]) -> bool:
    """Return whether a record has all that is compared when the run is resumed, and is not damaged."""
    tokenizer, data = content.get('tokenizer'), content.get('data')
    return (
        isinstance(tokenizer, dict)
        and 'fingerprint' in tokenizer
        and isinstance(data, list)
        and all(isinstance(item, dict) and ('file' not in item or 'bytes' in item) for item in data)
        and isinstance(content.get('init'), dict | None)
    )


def check_files(
    workdir: pathlib.Path, config: Mapping[str, Any], saved: Mapping[str, Any], experiment: Experiment
) -> None:
    """Check that the text and the words of a pretraining run to be resumed are unchanged, before rows are prepared.

    Settings that differ from the saved config are left to `resume.check_config`. Missing text files are ignored, since
    rows may be copied without their text.

    Args:
      workdir: working directory of the run.
      config: its saved config.
      saved: its record.
      experiment: config with which it is to be resumed, not necessarily complete.

    Raises:
      UserError: if the text files or the words of `task.segmenter` differ.
    """
    data, changed = experiment.data, []
    if not _is_complete(saved) or not isinstance(data, TextConfig):
        return
    if list(data.sources) == config['data'].get('sources'):
        names = [sources.parse_source(source)[1] for source in data.sources]
        sizes = [size for name in names for size in sources.file_sizes(name)]
        before = [item for item in saved['data'] if 'file' in item]
        different = [a['file'] for a, b in zip(before, sizes, strict=False) if a['bytes'] != b]
        if sizes and (different or len(sizes) != len(before)):
            changed.append(_describe_data(different))
    segmenter, source = _describe_segmenter(experiment), config['task'].get('segmenter')
    if segmenter and segmenter['source'] == source and segmenter != saved.get('segmenter'):
        changed.append(f'task.segmenter={source!r}')
    _raise_if_changed(workdir, changed)


def _describe_data(names: Sequence[str]) -> str:
    return f'the data ({", ".join(names[:3]) or "the number of files"})'


def _raise_if_changed(workdir: pathlib.Path, changed: Sequence[str]) -> None:
    if changed:
        raise UserError(
            f'The run in {str(workdir)!r} began with other content of {" and ".join(changed)}. Restore it to resume, or '
            'choose another --workdir.'
        )


def check(workdir: pathlib.Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run to be resumed is still made from the same tokenizer and data.

    A changed `init.checkpoint` is a warning, since the run has its own parameters.

    Args:
      workdir: working directory of the run.
      saved: its record.
      now: result of `describe`.

    Raises:
      UserError: if the tokenizer or the data differ.
    """
    if not _is_complete(saved):
        if (workdir / FILE).exists():
            logging.warning(
                '%s is damaged, so the data and the tokenizer are not compared with it', workdir / FILE
            )
        return
    changed = []
    if saved['tokenizer']['fingerprint'] != now['tokenizer']['fingerprint']:
        changed.append('the tokenizer')
    contents = [[{k: v for k, v in item.items() if k != 'file'} for item in x['data']] for x in (saved, now)]
    if contents[0] != contents[1]:
        different = [new for new, a, b in zip(now['data'], *contents, strict=False) if a != b]
        changed.append(_describe_data([item.get('file') or item['dataset'] for item in different]))
    _raise_if_changed(workdir, changed)
    if (saved['init'] or {}).get('hash') != (now['init'] or {}).get('hash'):
        logging.warning(
            'init.checkpoint has changed since the run in %s began, which keeps the parameters that it read',
            workdir,
        )


def write(workdir: pathlib.Path, saved: Mapping[str, Any], now: Mapping[str, Any], step: int) -> None:
    """Write the record of a run, with a new entry for this start.

    Args:
      workdir: working directory of the run.
      saved: its earlier record; empty for a new run.
      now: result of `describe`.
      step: step at which the run starts or resumes.
    """
    device = jax.devices()[0]
    devices = {
        'kind': device.device_kind,
        'count': jax.device_count(),
        'processes': jax.process_count(),
    }
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    start = {
        'step': step,
        'time': time,
        'host': socket.gethostname(),
        **describe_process(),
        'devices': devices,
    }
    earlier = saved.get('starts')
    content = {**now, 'starts': [*(earlier if isinstance(earlier, list) else ()), start]}
    paths.write_atomic(workdir / FILE, json.dumps(content, indent=2) + '\n')
