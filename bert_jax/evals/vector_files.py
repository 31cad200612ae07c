"""Folders of vectors: embed the texts of a file, resume after an interruption, and search."""

import json
import logging
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.core import paths
from bert_jax.core.errors import UserError, first_line
from bert_jax.data import formats
from bert_jax.data import records as records_lib
from bert_jax.data.records import Record
from bert_jax.evals import retrieval
from bert_jax.evals.embedder import Embedder

VECTORS, TEXTS, ABOUT = 'vectors.npy', 'texts.jsonl', 'embed.json'
_CHUNK = 4096  # number of texts after which the vectors are on disk


class Found(NamedTuple):
    """A search result.

    Attributes:
      score: cosine similarity.
      name: id of the text.
      text: the text.
    """

    score: float
    name: Any
    text: str


def read_texts(source: str, split: str, text: str, name: str = '') -> list[dict[str, Any]]:
    """Read the texts to embed. Invalid records of files are logged and skipped.

    Args:
      source: TFDS name, or path or glob of files; see `records.read`.
      split: name of the split.
      text: field of the text.
      name: field of the id; empty numbers the texts from 0.

    Returns:
      One dictionary with `id` and `text` for each text.

    Raises:
      UserError: if there are no texts.
    """
    try:
        if formats.is_path(source):
            files = records_lib.find_files(source, split)
            records: Iterable[Record] = (
                record for file in files for record in records_lib.read_file(file, _skip)
            )
        else:
            records = records_lib.read(source, split)
    except UserError as e:
        raise UserError(str(e).replace('data.source', '--input')) from e
    found: list[dict[str, Any]] = []
    ids: set[str] = set()
    for record in records:
        try:
            content = record.text(text)
            if not content.strip():
                raise record.error(f'has no text in the field {text!r}')
            identity = record.get(name) if name else len(found)
            if str(identity) in ids:
                raise record.error(f'repeats the {name} {identity!r}')
            ids.add(str(identity))
            found.append({'id': identity, 'text': content})
        except UserError as e:
            _skip(str(e))
    if not found:
        fields = f'{text!r} and an id in the field {name!r}' if name else repr(text)
        raise UserError(
            f'{records_lib.describe_source(source, split)} has no text in the field {fields}. '
            f'Set --text{" and --id" * bool(name)}.'
        )
    return found


def _skip(problem: str) -> None:
    logging.warning('skipped: %s', problem)


def embed(
    embedder: Embedder,
    texts: Sequence[dict[str, Any]],
    folder: pathlib.Path,
    about: dict[str, Any],
    prompt: str = '',
) -> int:
    """Write the vectors of texts to `vectors.npy` in a folder, and the texts to `texts.jsonl`.

    If the folder has some of the vectors already, only the others are computed.

    Args:
      embedder: encoder of the texts.
      texts: result of `read_texts`.
      folder: the folder.
      about: what the vectors depend on, such as the checkpoint.
      prompt: text that precedes each text.

    Returns:
      The number of vectors that were computed now.

    Raises:
      UserError: if the folder has vectors of something else, or a text has several vectors.
    """
    _check_pooling(embedder)
    folder.mkdir(parents=True, exist_ok=True)
    about = {**about, 'prompt': prompt, 'texts': len(texts), 'width': embedder.width}
    lines = ''.join(json.dumps(text, ensure_ascii=False, default=str) + '\n' for text in texts)
    start = 0
    if (folder / ABOUT).exists():
        before = _read_about(folder)
        start = before.pop('done', 0)
        if before != about or (folder / TEXTS).read_text() != lines:
            raise UserError(
                f'{str(folder)!r} has vectors of other texts or of another model. Choose another --output.'
            )
    shape = (len(texts), embedder.width)
    if not start:
        paths.write_atomic(folder / TEXTS, lines)
        np.lib.format.open_memmap(folder / VECTORS, 'w+', np.float32, shape).flush()
    _open_vectors(folder, shape)  # a file that was cut off would be filled with zeros
    vectors = np.lib.format.open_memmap(folder / VECTORS, 'r+')
    for i in range(start, len(texts), _CHUNK):
        part = [text['text'] for text in texts[i : i + _CHUNK]]
        vectors[i : i + len(part)] = embedder.encode(part, prompt)
        vectors.flush()
        paths.write_atomic(folder / ABOUT, json.dumps({**about, 'done': i + len(part)}, indent=2) + '\n')
    return len(texts) - start


def _check_pooling(embedder: Embedder) -> None:
    """Raise UserError if a text has several vectors."""
    if embedder.has_token_vectors:
        raise UserError(
            'The model has a vector for each token, but a folder holds one for each text. Set --checkpoint to a model with '
            'another pooling.'
        )


def _read_about(folder: pathlib.Path) -> dict[str, Any]:
    try:
        about = paths.read_json(folder / ABOUT)
        if not all(isinstance(about.get(key), int) for key in ('done', 'texts', 'width')):
            raise ValueError(f'no numbers of texts in {ABOUT}')
        return about
    except ValueError as e:
        raise _damaged_error(folder, e) from e


def _open_vectors(folder: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
    """Open the vectors of a folder for reading.

    Raises:
      UserError: if the file is damaged, or has vectors of another shape.
    """
    try:
        vectors = np.load(folder / VECTORS, 'r')
        if vectors.shape != shape:
            raise ValueError(f'{vectors.shape} vectors for {shape[0]} texts')
        return vectors
    except (OSError, ValueError, EOFError) as e:
        raise _damaged_error(folder, e) from e


def _damaged_error(folder: pathlib.Path, e: Exception) -> UserError:
    return UserError(
        f'The vectors in {str(folder)!r} are damaged ({first_line(e)}). Delete the folder and run bert_jax.bin.embed again.'
    )


class Index:
    """The vectors and texts of a folder that `embed` has written, to be searched.

    Args:
      folder: the folder.
      embedder: encoder of the queries.
      checkpoint: identity of its checkpoint, which `embed` got as `about['checkpoint']`; empty does not compare it.

    Raises:
      UserError: if the folder has no vectors, not all of them, or those of another model, or a query has several vectors.
    """

    def __init__(self, folder: pathlib.Path, embedder: Embedder, checkpoint: str = ''):
        _check_pooling(embedder)
        if not (folder / ABOUT).exists():
            raise UserError(f'{str(folder)!r} has no vectors. Pass the --output of bert_jax.bin.embed.')
        about = _read_about(folder)
        if about['done'] < about['texts']:
            raise UserError(
                f'{str(folder)!r} has {about["done"]:,} of {about["texts"]:,} vectors. Run bert_jax.bin.embed again to finish it.'
            )
        if about['width'] != embedder.width:
            raise UserError(
                f'{str(folder)!r} has vectors of width {about["width"]}, but those of the model have {embedder.width}. '
                'Set --checkpoint to the model of the vectors.'
            )
        if checkpoint and about.get('checkpoint') != checkpoint:
            raise UserError(
                f'{str(folder)!r} has vectors of another model or step. Set --checkpoint to the model of the vectors.'
            )
        self._embedder, self._folder = embedder, folder
        try:
            # Only line feeds separate the lines: JSON does not escape U+2028 and others that `splitlines` splits at.
            lines = (folder / TEXTS).read_text(encoding='utf-8').removesuffix('\n').split('\n')
            self._texts = [json.loads(line) for line in lines]
            if not all(isinstance(t, dict) and {'id', 'text'} <= t.keys() for t in self._texts):
                raise ValueError(f'a text without id in {TEXTS}')
        except (OSError, ValueError) as e:
            raise _damaged_error(folder, e) from e
        self._vectors = _open_vectors(folder, (len(self._texts), about['width']))

    def search(self, query: str, top: int, prompt: str = '') -> list[Found]:
        """Find the `top` texts whose vectors are the most similar to that of a query, which follows a prompt."""
        vector = self._embedder.encode([query], prompt)
        indices, scores = retrieval.nearest(vector, self._vectors, top)
        if not np.isfinite(scores).all():  # NaN counts as most similar
            raise _damaged_error(self._folder, ValueError(f'a vector in {VECTORS} is not finite'))
        return [
            Found(float(score), self._texts[i]['id'], self._texts[i]['text'])
            for i, score in zip(indices[0], scores[0], strict=True)
        ]
