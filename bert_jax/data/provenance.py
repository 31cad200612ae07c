"""Describe the tokenizer and the data that a run or prepared rows are made from."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from bert_jax.data import formats, records, sources, tfds_data
from bert_jax.data.tokenizer import Tokenizer

_MAX_HASHED_BYTES = 1 << 28


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return kind, case, size and fingerprint of a tokenizer, and where it is from."""
    return {
        'kind': tokenizer.kind,
        'lowercase': tokenizer.lowercase,
        'size': len(tokenizer),
        'fingerprint': tokenizer.fingerprint,
        'source': tokenizer.source,
    }


def describe_text(text: Any) -> list[dict[str, Any]]:
    """Describe the sources of a text: each file with its size, each TFDS data set with its version and its splits.

    Args:
      text: a `prepare.TextConfig`.
    """
    splits = [split for split in (text.split, text.validation_split) if split]
    found = []
    for name in (sources.parse_source(source)[1] for source in text.sources):
        if formats.is_path(name):
            found += [
                {'file': path, 'bytes': os.path.getsize(path)} for path in sources.find_text_files(name)
            ]
        else:
            found += [tfds_data.describe(name, split) for split in splits]
    return found


def describe_labeled(source: str, splits: Sequence[str]) -> list[dict[str, Any]]:
    """Describe splits of labeled data: files with size and SHA-256, or a TFDS data set with version and size."""
    if not formats.is_path(source):
        return [tfds_data.describe(source, split) for split in splits]
    return [_describe_file(path) for split in splits for path in records.find_files(source, split)]


def _describe_file(path: str) -> dict[str, Any]:
    size = os.path.getsize(path)
    if size > _MAX_HASHED_BYTES:
        return {'file': path, 'bytes': size}
    with open(path, 'rb') as file:
        return {'file': path, 'bytes': size, 'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}
