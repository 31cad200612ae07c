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
from bert_jax.data.prepare import Shard


def make_runner(options: str, staging: str = '') -> Callable[..., Iterator[dict[str, Any]]]:
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
        from apache_beam.io.filesystems import FileSystems
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

    def run_shards(
        work: Any, shards: Iterable[Shard], workers: int, folder: pathlib.Path
    ) -> Iterator[dict[str, Any]]:
        """Run `work` on all shards in a Beam pipeline and yield its results in order."""
        remote = f'{staging.rstrip("/") or folder.absolute()}/bert_jax-{uuid.uuid4().hex}'
        FileSystems.mkdirs(remote)
        try:
            _write(f'{remote}/work', pickle.dumps(work))
            numbers = []
            for shard in shards:
                _write(f'{remote}/{shard.number}.shard', pickle.dumps(shard))
                numbers.append(shard.number)
            with pipeline() as p:
                _ = p | beam.Create(numbers) | beam.Reshuffle() | beam.Map(_make_remote_rows, remote=remote)
            for number in numbers:
                result = json.loads(_read(f'{remote}/{number}.json'))
                if result['rows']:
                    (folder / result['file']).write_bytes(_read(f'{remote}/{result["file"]}'))
                yield result
        finally:
            FileSystems.delete([remote])

    return run_shards


def _make_remote_rows(number: int, remote: str) -> None:
    """Turn a shard from the staging folder into rows on a Beam worker, and write them to the same folder.

    Args:
      number: number of the shard.
      remote: staging folder of this run.
    """
    shard = pickle.loads(_read(f'{remote}/{number}.shard'))
    with tempfile.TemporaryDirectory() as folder:
        result = _load_work(remote)(shard, folder=pathlib.Path(folder))
        if result['rows']:
            _write(f'{remote}/{result["file"]}', (pathlib.Path(folder) / result['file']).read_bytes())
    _write(f'{remote}/{number}.json', json.dumps(result).encode())


@functools.cache
def _load_work(remote: str) -> Any:
    """Load the function that turns a shard into rows, once in each worker process."""
    return pickle.loads(_read(f'{remote}/work'))


def _read(path: str) -> bytes:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(path) as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.create(path) as file:
        file.write(data)
