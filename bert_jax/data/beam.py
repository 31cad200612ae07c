"""Prepare rows on an Apache Beam runner; they are the same as from local processes.

The command that starts the pipeline cuts the text into shards and writes them to a staging folder. Workers turn the
shards into rows there, and the command downloads the rows. Workers therefore only need access to the staging folder,
which is on a shared disk or gs://.
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


def make_runner(options: str, staging: str = '') -> Callable[..., Iterator[tuple[Shard, dict[str, Any]]]]:
    """Make the `run_shards` argument of `prepare.prepare`.

    Args:
      options: Beam options, such as '--runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp'.
      staging: folder that all workers can access. A temporary folder is created in it. Empty uses the output folder.

    Raises:
      UserError: if Beam is not installed or rejects the options.
    """
    beam_options = cli.split_options(options, '--beam')
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as e:
        raise UserError(
            'Apache Beam is not installed. Run pip install apache-beam in a separate environment, because it needs '
            'older versions of some libraries.'
        ) from e

    def pipeline() -> Any:
        return beam.Pipeline(options=PipelineOptions(beam_options))

    try:
        pipeline()  # fails here, before any work, if the runner does not exist
    except (AttributeError, ImportError, ValueError) as e:
        reason = ' '.join(str(e).split()).rstrip('.')
        raise UserError(f'Apache Beam rejects --beam={options!r}: {reason}.') from e
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
    """Run `work` on all shards in a Beam pipeline and yield (shard, result) in order."""
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems

    remote = f'{staging.rstrip("/") or folder.absolute()}/bert_jax-{uuid.uuid4().hex}'
    FileSystems.mkdirs(remote)
    try:
        _write(f'{remote}/{tokenizer_lib.FILE}', (folder / tokenizer_lib.FILE).read_bytes())
        stubs = []  # shards without their text
        for shard in shards:
            _write(f'{remote}/{shard.number}.shard', pickle.dumps(shard))
            stubs.append(shard._replace(documents=[]))
        with pipeline() as p:
            numbers = p | beam.Create([stub.number for stub in stubs]) | beam.Reshuffle()
            _ = numbers | beam.Map(_make_remote_rows, remote=remote, work=work)
        for stub in stubs:
            result = json.loads(_read(f'{remote}/{stub.number}.json'))
            if result['rows']:
                (folder / result['file']).write_bytes(_read(f'{remote}/{result["file"]}'))
            yield stub, result
    finally:
        FileSystems.delete([remote])


def _make_remote_rows(number: int, remote: str, work: Any) -> None:
    """Turn a shard into rows, on a worker."""
    shard = pickle.loads(_read(f'{remote}/{number}.shard'))
    _load_tokenizer(remote)
    with tempfile.TemporaryDirectory() as folder:
        result = work(shard, folder=pathlib.Path(folder))
        if result['rows']:
            _write(f'{remote}/{result["file"]}', (pathlib.Path(folder) / result['file']).read_bytes())
    _write(f'{remote}/{number}.json', json.dumps(result).encode())


@functools.cache
def _load_tokenizer(remote: str) -> None:
    """Load the tokenizer, once in each worker process."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / tokenizer_lib.FILE
        file.write_bytes(_read(f'{remote}/{tokenizer_lib.FILE}'))
        prepare.init_worker(file)


def _read(path: str) -> bytes:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(path) as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.create(path) as file:
        file.write(data)
