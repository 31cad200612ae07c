"""Prepared data sets of TFDS, and `pydocs`, as random-access sequences of examples."""

import contextlib
import difflib
import importlib
import io
import itertools
import logging
import os
import pathlib
import pkgutil
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bert_jax.core.config import did_you_mean, list_names
from bert_jax.core.errors import UserError, first_line
from bert_jax.core.paths import cache_dir, lock_folder


def folders() -> list[str]:
    """Return the folders of prepared data sets: those in `TFDS_DATA_DIR`, separated by colons, or the default of TFDS."""
    value = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    parts = re.split(rf'{os.pathsep}(?!//)', value)  # a colon also follows the gs of gs://BUCKET
    return [os.path.expanduser(part) for part in parts if part]


def splits_overlap(a: str, b: str, dataset: str = '') -> bool:
    """Return whether two splits of a TFDS data set certainly share examples, such as 'train' and 'train[:100]+test'.

    Args:
      a: a split, which may be a sum of slices.
      b: another split.
      dataset: name of the data set. If it is prepared on this machine, different slices of one split, such as
        'train[:95%]' and 'train[90%:]', are compared by their ranges of examples; otherwise they count as disjoint.
    """
    parts = [[part.strip().partition('[') for part in split.split('+')] for split in (a, b)]
    slices = [(x[2], y[2]) for x, y in itertools.product(*parts) if x[0] == y[0]]
    if any(not x or not y or x == y for x, y in slices):
        return True
    return bool(slices and dataset) and _slices_overlap(a, b, dataset)


def _slices_overlap(a: str, b: str, dataset: str) -> bool:
    """Return whether two splits share examples, by the sizes of a prepared data set; False if it cannot be opened."""
    import tensorflow_datasets as tfds

    try:
        splits = _builder(dataset).info.splits
        parts = [tfds.core.ReadInstruction.from_spec(split).to_absolute(splits) for split in (a, b)]
    except (UserError, ValueError, AssertionError):  # reading the split reports what is wrong with it
        return False
    ranges = [
        [(p.splitname, range(splits[p.splitname].num_examples)[p.from_ : p.to]) for p in ps] for ps in parts
    ]
    return any(
        name == other and max(x.start, y.start) < min(x.stop, y.stop)
        for (name, x), (other, y) in itertools.product(*ranges)
    )


def load_examples(name: str, split: str) -> Sequence[dict[str, Any]]:
    """Load a split of a TFDS data set as a random-access sequence of examples, with text decoded to `str`.

    The data set must be prepared in one of the `folders`; `pydocs/...` is built on this machine.

    Raises:
      UserError: if the data set is not there, the split is unknown or empty, or it cannot be read.
    """
    builder = _builder(name)
    _count_examples(builder, name, split)
    try:
        source = builder.as_data_source(split=split)
        len(source)
    except Exception as e:
        raise _read_error(name, split, e) from e
    return _DecodedExamples(source, f'split {split!r} of {name}')


def _count_examples(builder: Any, name: str, split: str) -> int:
    """Return the number of examples of a split; raises UserError if it is unknown, malformed or empty."""
    splits = builder.info.splits
    for part in split.split('+'):
        base = part.split('[')[0].strip()
        if base not in splits:
            raise UserError(
                f'{name} has no split {base!r}: {did_you_mean(base, splits)} Set one of them, or a part of it, such as '
                f"'{next(iter(splits), 'train')}[90%:]'."
            )
    try:
        count = splits[split].num_examples
    except (ValueError, AssertionError) as e:
        raise _read_error(name, split, e) from e
    if count <= 0:  # below 0 if a slice ends before its start
        raise UserError(f'Split {split!r} of {name} is empty. Set a split with examples.')
    return count


def _read_error(name: str, split: str, e: Exception) -> UserError:
    return UserError(
        f'Cannot read split {split!r} of {name} ({first_line(e)}). Correct the split or prepare the data set again.'
    )


def list_configs(name: str) -> list[str]:
    """Return the names of all prepared configs of a TFDS data set; `[name]` for anything else, such as a path.

    Args:
      name: name of a TFDS data set, such as 'blimp', or of one of its configs, such as 'blimp/adjunct_island'.
    """
    configs = [] if '/' in name else [config for folder in folders() for config in _configs(folder, name)]
    return [f'{name}/{config}' for config in configs] or [name]


def load_features(name: str) -> dict[str, Any]:
    """Return the TFDS features of a data set, by field."""
    return dict(_builder(name).info.features.items())


def describe(name: str, split: str) -> dict[str, Any]:
    """Return the name and version of a data set, the split, and its number of examples.

    Raises:
      UserError: if the data set is not there, or the split is unknown or empty.
    """
    builder = _builder(name)
    return {
        'dataset': builder.info.full_name,
        'split': split,
        'examples': _count_examples(builder, name, split),
    }


class _DecodedExamples(Sequence):
    """Examples with all bytes decoded to `str`, also in nested features."""

    def __init__(self, source: Any, name: str):
        self._source, self._name = source, name

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        return self._read([range(len(self))[index]])[0]  # a range counts negative indices from its end

    def _read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        try:
            return [_decode(e) for e in self._source.__getitems__(list(indices))]
        except Exception as e:
            raise UserError(f'Cannot read {self._name} ({first_line(e)}). Prepare the data set again.') from e

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), 1024):
            yield from self._read(range(start, min(start + 1024, len(self))))


def _decode(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode('utf-8', 'replace')
    if isinstance(value, dict):
        return {k: _decode(v) for k, v in value.items()}
    if isinstance(value, list | tuple) or getattr(getattr(value, 'dtype', None), 'kind', '') == 'O':
        return [_decode(v) for v in value]
    return value


def _builder(name: str) -> Any:
    """Return the TFDS builder of a prepared data set."""
    import tensorflow_datasets as tfds

    if name.split('/')[0] == 'pydocs':
        return _pydocs(name)
    for folder in folders():
        if '/' not in name and len(configs := _configs(folder, name)) > 1:
            raise UserError(f'Data set {name!r} has several configs. Name one of {_list(name, configs)}.')
        try:
            # The files suffice. A builder in code would ask the bucket of TFDS about a data set that is missing here.
            return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
        except tfds.core.registered.DatasetNotFoundError:
            continue
        except (ValueError, OSError, ImportError) as e:  # gcsfs may be missing
            raise UserError(
                f'Cannot open the data set {name!r} in {folder!r} ({first_line(e)}). Correct TFDS_DATA_DIR.'
            ) from e
    raise _not_found_error(name)


def _configs(folder: str, dataset: str) -> list[str]:
    """Return the names of the prepared configs of a data set; empty if it has versions only."""
    found = sorted(p.name for p in pathlib.Path(folder, dataset).glob('[!.]*') if p.is_dir())
    return [name for name in found if not re.fullmatch(r'[\d.]+', name)]


def _list(dataset: str, configs: Sequence[str]) -> str:
    return list_names([f'{dataset}/{config}' for config in configs])


def _not_found_error(name: str) -> UserError:
    """Return the error for a data set that is in no folder: what is there, and how to get it."""
    where = f'TFDS_DATA_DIR={os.pathsep.join(folders())}'
    dataset = re.split('[/:]', name)[0]
    configs = {
        path.name: _configs(folder, path.name)
        for folder in folders()
        for path in pathlib.Path(folder).glob('[!.]*')
        if any(path.glob('*/dataset_info.json')) or any(path.glob('*/*/dataset_info.json'))
    }
    if dataset in configs:
        return UserError(
            f'Data set {dataset} has no config or version {name.removeprefix(dataset)[1:]!r} in {where}: '
            f'{did_you_mean(name.partition("/")[2], configs[dataset])}'
        )
    missing = [folder for folder in folders() if '://' not in folder and not os.path.isdir(folder)]
    absent = f' ({", ".join(missing)} {"do" if len(missing) > 1 else "does"} not exist)' if missing else ''
    prepared = f'Prepared there: {list_names(sorted(configs))}.'
    catalog = _catalog()
    if dataset in catalog:
        return UserError(
            f'Data set {name!r} is not in {where}{absent}. Run `python -m bert_jax.bin.download {name}` on a machine '
            f'with internet access, or set TFDS_DATA_DIR to a folder where it is prepared. {prepared}'
        )
    known = [
        full for other, names in configs.items() for full in ([f'{other}/{n}' for n in names] or [other])
    ]
    same = [full for full in known if full.endswith(f'/{name}')]
    close = (
        same
        or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        or difflib.get_close_matches(dataset, ['pydocs', *catalog], n=1, cutoff=0.5)
    )
    hint = f': did you mean {close[0]!r}?' if close else '.'
    return UserError(
        f'Data set {name!r} is neither in {where}{absent} nor in the TFDS catalog{hint} '
        f'Set TFDS_DATA_DIR to a folder where it is prepared, or use files instead. {prepared}'
    )


def _catalog() -> list[str]:
    """Return the names of the data sets that TFDS can download."""
    import tensorflow_datasets as tfds

    # Some builders of texts are registered only when their module is imported.
    modules = pkgutil.iter_modules([str(pathlib.Path(tfds.__file__).parent / 'text')])
    return [*tfds.list_builders(with_community_datasets=False), *(module.name for module in modules)]


def download(name: str) -> str:
    """Download a data set of the TFDS catalog and prepare it in the first of the `folders`, which is returned.

    Raises:
      UserError: if there is no such data set, or it cannot be downloaded.
    """
    import tensorflow_datasets as tfds

    folder = folders()[0]
    options = dict(data_dir=folder, file_format='array_record')
    not_found = tfds.core.registered.DatasetNotFoundError
    try:
        try:
            builder = tfds.builder(name, **options)
        except not_found:  # see `_catalog`
            importlib.import_module(f'tensorflow_datasets.text.{name.split("/")[0]}')
            builder = tfds.builder(name, **options)
    except (not_found, ImportError) as e:
        hint = did_you_mean(name.split('/')[0], _catalog())
        raise UserError(f'The TFDS catalog has no data set {name!r}: {hint}') from e
    except ValueError as e:
        raise UserError(
            f'Cannot open the data set {name!r} ({first_line(e)}). Correct its name or config.'
        ) from e
    try:
        if not builder.is_prepared():
            prepare(builder, progress_bar=sys.stderr.isatty())
    except Exception as e:
        raise UserError(
            f'Data set {name!r} cannot be downloaded to {folder!r} ({first_line(e)}). Check the connection, or prepare it '
            'on another machine and set TFDS_DATA_DIR to the folder.'
        ) from e
    return folder


def _pydocs(name: str) -> Any:
    from bert_jax.data.pydocs import dataset, source

    config = name.partition('/')[2] or 'text'
    known = [c.name for c in dataset.Pydocs.BUILDER_CONFIGS]
    if config not in known:
        raise UserError(f'pydocs has no config {config!r}: {did_you_mean(config, known)}')
    folder = cache_dir() / f'pydocs-{source.fingerprint()}'
    with lock_folder(folder):
        builder = dataset.Pydocs(config=config, data_dir=str(folder))
        if not builder.is_prepared():
            logging.info('building %s from the documentation of the installed packages', name)
            prepare(builder, progress_bar=False)
    return builder


def prepare(builder: Any, progress_bar: bool) -> None:
    """Prepare a TFDS data set without the status messages that TFDS prints."""
    import tensorflow_datasets as tfds

    tfds.display_progress_bar(progress_bar)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    finally:
        tfds.display_progress_bar(True)
