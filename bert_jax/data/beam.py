"""Rows by Apache Beam: the same as by the local processes, made wherever a runner runs.

The command that starts the pipeline cuts the text into shards and puts them into a staging folder, workers make rows of them there,
and the command fetches these. So workers need to see the staging folder alone: a disk that all share, or gs://.
"""

import functools
import json
import pathlib
import pickle
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bert_jax.core import cli
from bert_jax.core.errors import UserError
from bert_jax.data import prepare
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.prepare import Shard


def runner(options: str, staging: str = '') -> Callable[..., Iterator[tuple[Shard, dict[str, Any]]]]:
    """What `prepare.prepare` takes to run its shards.

    Args:
      options: of Beam, such as '--runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp'.
      staging: a folder that all workers see, in which one is made and deleted; empty is beside the rows.

    Raises:
      UserError: if Beam is not installed, or does not take the options.
    """
    words = cli.words(options, '--beam')
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as e:
        raise UserError(
            'Apache Beam is not installed: pip install apache-beam, in an environment of its own, since it holds back '
            'libraries that others have in newer versions.'
        ) from e

    def pipeline() -> Any:
        return beam.Pipeline(options=PipelineOptions(words))

    try:
        pipeline()  # looks for the runner, before any shard is cut
    except (AttributeError, ImportError, ValueError) as e:
        why = ' '.join(str(e).split()).rstrip('.')
        raise UserError(f'Apache Beam does not take --beam={options!r}: {why}.') from e
    return functools.partial(_run, pipeline=pipeline, staging=staging)


def _run(
    work: Any,
    shards: Iterable[Shard],
    workers: int,
    folder: pathlib.Path,
    *,
    pipeline: Callable[[], Any],
    staging: str,
) -> Iterator[tuple[Shard, dict[str, Any]]]:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems

    place = f'{staging.rstrip("/") or folder.absolute()}/bert_jax-{uuid.uuid4().hex}'
    FileSystems.mkdirs(place)
    try:
        _write(f'{place}/{tokenizer_lib.FILE}', (folder / tokenizer_lib.FILE).read_bytes())
        heads = []
        for shard in shards:
            _write(f'{place}/{shard.number}.shard', pickle.dumps(shard))
            heads.append(shard._replace(documents=[]))
        with pipeline() as p:
            numbers = p | beam.Create([head.number for head in heads]) | beam.Reshuffle()
            _ = numbers | beam.Map(_make, place=place, work=work)
        for head in heads:
            done = json.loads(_read(f'{place}/{head.number}.json'))
            if done['rows']:
                (folder / done['file']).write_bytes(_read(f'{place}/{done["file"]}'))
            yield head, done
    finally:
        FileSystems.delete([place])


def _make(number: int, place: str, work: Any) -> None:
    """On a worker: rows of one shard."""
    shard = pickle.loads(_read(f'{place}/{number}.shard'))
    _load_tokenizer(place)
    with tempfile.TemporaryDirectory() as folder:
        done = work(shard, folder=pathlib.Path(folder))
        if done['rows']:
            _write(f'{place}/{done["file"]}', (pathlib.Path(folder) / done['file']).read_bytes())
    _write(f'{place}/{number}.json', json.dumps(done).encode())


@functools.cache
def _load_tokenizer(place: str) -> None:
    """Once in each process."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / tokenizer_lib.FILE
        file.write_bytes(_read(f'{place}/{tokenizer_lib.FILE}'))
        prepare.start_worker(file)


def _read(path: str) -> bytes:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(path) as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.create(path) as file:
        file.write(data)
