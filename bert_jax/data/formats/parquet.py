"""Parquet files, as Hugging Face `datasets` writes them."""

import functools
import json
from typing import Any, BinaryIO

from bert_jax.core.errors import UserError, first_line
from bert_jax.data.formats.common import LocatedFields


def read(file: BinaryIO | str, path: str) -> LocatedFields:
    """Read the rows of a file; numbers of classes that have names in its metadata become their names.

    -1, the number for a hidden class, becomes None.
    """
    parquet = _open(file, path)
    converters = {name: functools.partial(_to_names, names) for name, names in _class_names(parquet).items()}
    number = 0
    try:
        for batch in parquet.iter_batches(batch_size=1024):
            for fields in batch.to_pylist():
                number += 1
                yield (
                    f'row {number}',
                    {k: converters[k](v) if k in converters else v for k, v in fields.items()},
                )
    except (OSError, ValueError) as e:  # pyarrow's errors are of these types
        raise _damaged_error(path, e) from e


def class_names(path: str, field: str) -> tuple[str, ...]:
    """Return the names of the classes in a field, in the order of their numbers; empty if the file does not say."""
    return _class_names(_open(path, path)).get(field, ())


def _open(file: BinaryIO | str, path: str) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except (OSError, ValueError) as e:
        raise _damaged_error(path, e) from e


def _damaged_error(path: str, e: Exception) -> UserError:
    return UserError(f'{path!r} is damaged or not a Parquet file ({first_line(e)}). Download it again.')


def _class_names(parquet: Any) -> dict[str, tuple[str, ...]]:
    """Return the class names of each field that holds class labels or lists of class labels.

    They are read from the metadata that the Hugging Face library `datasets` writes to Parquet files.
    """
    metadata = (parquet.schema_arrow.metadata or {}).get(b'huggingface')
    info = json.loads(metadata).get('info', {}) if metadata else {}
    features = (info.get('features') or {}).items()
    elements = {name: _element(feature) for name, feature in features}
    return {name: tuple(e['names']) for name, e in elements.items() if e.get('_type') == 'ClassLabel'}


def _element(feature: Any) -> Any:
    """Return the element feature of a list, however deeply nested, or any other feature itself."""
    while isinstance(feature, list) or feature.get('_type') in ('Sequence', 'List', 'LargeList'):
        feature = feature[0] if isinstance(feature, list) else feature['feature']
    return feature


def _to_names(names: tuple[str, ...], value: Any) -> Any:
    if isinstance(value, list):
        return [_to_names(names, entry) for entry in value]
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return None if value == -1 else value
