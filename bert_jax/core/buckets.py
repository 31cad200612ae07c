"""Folders in buckets of object stores, such as gs://BUCKET/runs/english and s3://BUCKET/runs/english.

A path in a bucket is an `etils.epath.Path`, which has most methods of `pathlib.Path`. It lacks `rglob`, and `absolute`
and appending to a file do not work. A file appears in a bucket when it is complete, and replaces its predecessor
atomically. Renaming a folder is not atomic.
"""

import contextlib
import json
import logging
import os
import pathlib
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from bert_jax.core.errors import UserError, first_line

_PACKAGES = {'gs': 'gcsfs', 's3': 's3fs'}
_UPLOAD_SECONDS = 20.0  # time between two uploads of the files of a `Mirror`
_REFRESH_SECONDS = 15.0  # time between two signs of life of the process that holds a lock
_EXPIRY_SECONDS = 60.0  # time without a sign of life after which a lock has no holder
_POLL_SECONDS = 1.0  # time between two looks at the lock of another process
_INDEX = '.versions.json'  # file of a local copy with the versions of the files in the bucket


def is_in_bucket(path: str | os.PathLike[str]) -> bool:
    """Return whether a path begins with gs:// or s3://."""
    return os.fspath(path).startswith(tuple(f'{scheme}://' for scheme in _PACKAGES))


def make_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return a path in a bucket as an object.

    Raises:
      UserError: if the package for this kind of bucket is not installed.
    """
    os.environ.setdefault('EPATH_USE_TF', 'false')  # etils would import TensorFlow where it is installed
    from etils import epath

    file_system(path)
    made: Any = epath.Path(path)
    return made


def file_system(path: str | os.PathLike[str]) -> Any:
    """Return the fsspec file system of a path in a bucket.

    Raises:
      UserError: if the package for this kind of bucket is not installed.
    """
    import fsspec

    scheme = os.fspath(path).partition('://')[0]
    for protocol in (scheme, 'gcs'):  # etils names gs differently
        # Other processes write to the bucket, so a cached listing may be outdated.
        fsspec.config.conf.setdefault(protocol, {})['use_listings_cache'] = False
    try:
        return fsspec.filesystem(scheme)
    except ImportError as e:
        package = _PACKAGES[scheme]
        raise UserError(
            f'{os.fspath(path)!r} needs the package {package}. Install it with `pip install {package}`.'
        ) from e


def check_writable(path: pathlib.Path, flag: str) -> None:
    """Raise UserError if a file cannot be created next to `path`."""
    probe = str(path.parent / f'.bert_jax-{uuid.uuid4().hex[:8]}')
    fs = file_system(path)
    try:
        fs.pipe_file(probe, b'')
        fs.rm_file(probe)
    except Exception as e:  # gcsfs and s3fs raise different errors
        raise UserError(
            f'{str(path)!r} cannot be written ({first_line(e)}). Check the bucket and the credentials, or choose another '
            f'{flag}.'
        ) from e


def find_files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Find the files of a name, or that match a pattern such as *.md, in a folder and its subfolders."""
    fs = file_system(folder)
    root = fs._strip_protocol(str(folder))
    found = (folder / path.removeprefix(root).lstrip('/') for path in fs.find(root))
    return sorted(path for path in found if path.match(name))


class Mirror:
    """A local folder for files that grow, which are uploaded to a folder in a bucket.

    A background thread uploads changed files every `_UPLOAD_SECONDS`. If an upload fails, it logs a warning and tries
    again later.

    Args:
      target: working directory. If it is local, it needs no mirror.
      names: files in it to begin with, unless they are missing.

    Attributes:
      folder: the local folder; `target` itself if that is local.
    """

    def __init__(self, target: pathlib.Path, names: Sequence[str]):
        self._target, self.folder = target, target
        self._is_needed = is_in_bucket(target)
        if not self._is_needed:
            return
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='bert_jax-'))
        self._fs = file_system(target)
        self._uploaded: dict[pathlib.Path, tuple[int, int]] = {}  # size and time of change by path
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).write_bytes(self._fs.cat_file(str(target / name)))
        self._is_uploading, self._is_closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._upload_regularly, daemon=True)
        self._thread.start()

    def upload(self) -> bool:
        """Upload the files that have changed; return whether this succeeded."""
        if not self._is_needed:
            return True
        with self._is_uploading:
            try:
                for file in self.folder.rglob('*'):
                    if file.is_file() and file.suffix != '.tmp':
                        self._upload(file)
            except Exception as e:  # gcsfs and s3fs raise different errors
                logging.warning('cannot upload to %s (%s)', self._target, first_line(e))
                return False
        return True

    def _upload(self, file: pathlib.Path) -> None:
        status = file.stat()
        version = status.st_size, status.st_mtime_ns
        if self._uploaded.get(file) != version:
            target = self._target / file.relative_to(self.folder).as_posix()
            self._fs.pipe_file(str(target), file.read_bytes())
            self._uploaded[file] = version

    def _upload_regularly(self) -> None:
        while not self._is_closed.wait(_UPLOAD_SECONDS):
            self.upload()

    def close(self) -> None:
        """Upload the files a last time, and delete them here unless that fails."""
        if not self._is_needed:
            return
        self._is_closed.set()
        self._thread.join()
        if self.upload():
            shutil.rmtree(self.folder)
        else:
            logging.warning('the files that were not uploaded are in %s', self.folder)


class _Copy:
    """Comparison of a local folder with its copy in a bucket.

    Attributes:
      remote: version of each file in the bucket, by relative path.
      local: size and time of change of each local file.
      is_current: whether a file was the same in both when it was last copied, and has not changed since.
    """

    def __init__(self, folder: pathlib.Path, bucket_folder: pathlib.Path):
        self._folder, self.fs = folder, file_system(bucket_folder)
        self.root = self.fs._strip_protocol(str(bucket_folder))
        self.compare()

    def compare(self) -> None:
        found = self.fs.find(self.root, detail=True).items()
        self.remote = {path.removeprefix(self.root).lstrip('/'): _version(info) for path, info in found}
        files = (p for p in self._folder.rglob('*') if p.is_file() and p.name != _INDEX)
        self.local = {p.relative_to(self._folder).as_posix(): _local_version(p) for p in files}
        try:
            self._index = json.loads((self._folder / _INDEX).read_text())
        except (OSError, ValueError):
            self._index = {}

    def is_current(self, name: str) -> bool:
        pair = [self.remote.get(name), self.local.get(name)]
        return None not in pair and self._index.get(name) == pair

    def write_index(self) -> None:
        """Record that both folders have the same files now."""
        self.compare()
        index = {name: [self.remote[name], self.local[name]] for name in self.local}
        (self._folder / _INDEX).write_text(json.dumps(index))


def _version(info: dict[str, Any]) -> str:
    """Return the version of a file in a bucket, from its description by fsspec."""
    return str(info.get('ETag') or info.get('etag') or info.get('created'))


def _local_version(file: pathlib.Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def download_folder(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Make a local folder a copy of a folder in a bucket. Only files that have changed are copied."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = _Copy(folder, source)
    for name in copy.local:
        if not copy.is_current(name):
            (folder / name).unlink()
    if missing := [name for name in copy.remote if not copy.is_current(name)]:
        logging.info('copying %d files from %s to %s', len(missing), source, folder)
        copy.fs.get([f'{copy.root}/{name}' for name in missing], [str(folder / name) for name in missing])
    copy.write_index()


def upload_folder(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Make a folder in a bucket a copy of a local folder. Only files that have changed are copied, manifests last."""
    copy = _Copy(folder, target)
    changed = [name for name in copy.local if not copy.is_current(name)]
    for name in copy.remote:  # deleted first, so that no manifest names files of other rows
        if not copy.is_current(name):
            copy.fs.rm_file(f'{copy.root}/{name}')
    if changed:
        logging.info('copying %d files from %s to %s', len(changed), folder, target)
    for name in sorted(changed, key=lambda name: name.endswith('manifest.json')):
        copy.fs.put_file(str(folder / name), f'{copy.root}/{name}')
    copy.write_index()


@contextlib.contextmanager
def lock(folder: pathlib.Path) -> Iterator[None]:
    """Lock a working directory in a bucket, by a file `.lock` that is rewritten every `_REFRESH_SECONDS`.

    The lock of a process that was killed expires after `_EXPIRY_SECONDS`, or at once for processes on the same machine.
    The store makes sure that only one process creates the file. Two processes that find an expired lock within the
    same second may both continue; the one whose file was replaced ends itself at its next refresh.

    Raises:
      UserError: if another process holds the lock.
    """
    fs, file, holder = file_system(folder), str(folder / '.lock'), _Holder()
    _acquire(folder, holder)
    is_done = threading.Event()

    def refresh() -> None:
        while not is_done.wait(_REFRESH_SECONDS):
            try:
                if holder.is_holder(_read_lock(folder)):
                    fs.pipe_file(file, holder.sign())
                else:
                    logging.error('error: another process has taken over %s, so this one ends', folder)
                    os._exit(1)
            except Exception as e:  # gcsfs and s3fs raise different errors
                logging.warning('cannot refresh %s (%s)', file, first_line(e))

    thread = threading.Thread(target=refresh, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()
        with contextlib.suppress(Exception):  # the lock expires
            if holder.is_holder(_read_lock(folder)):
                fs.rm_file(file)


class _Holder:
    """Makes the content of the lock files of this process: host, process and time, with an identifier."""

    def __init__(self) -> None:
        self._about = {'host': socket.gethostname(), 'process': os.getpid(), 'id': uuid.uuid4().hex}

    def sign(self) -> bytes:
        return json.dumps({**self._about, 'time': time.time()}).encode()

    def is_holder(self, content: dict[str, Any]) -> bool:
        return content.get('id') == self._about['id']


def _acquire(folder: pathlib.Path, holder: _Holder) -> None:
    fs, file = file_system(folder), str(folder / '.lock')
    first, start = _read_lock(folder), time.monotonic()
    if first and not _is_dead(first):
        logging.info(
            'waiting up to %d seconds to see whether process %s on %s still uses %s',
            _EXPIRY_SECONDS,
            first['process'],
            first['host'],
            folder,
        )
    content = first
    while content and not _is_dead(content) and time.monotonic() - start < _EXPIRY_SECONDS:
        time.sleep(_POLL_SECONDS)
        if (content := _read_lock(folder)) not in ({}, first):
            raise _in_use(folder)
    try:
        fs.pipe_file(file, holder.sign(), mode='overwrite' if content else 'create')
    except FileExistsError as e:
        raise _in_use(folder) from e
    if content:
        time.sleep(_POLL_SECONDS)
    if not holder.is_holder(_read_lock(folder)):
        raise _in_use(folder)


def _in_use(folder: pathlib.Path) -> UserError:
    return UserError(
        f'Another process is using {str(folder)!r}. Wait until it ends, or choose another --workdir.'
    )


def _read_lock(folder: pathlib.Path) -> dict[str, Any]:
    """Read the lock of a folder; empty if it is not locked."""
    try:
        return json.loads(file_system(folder).cat_file(str(folder / '.lock')))
    except FileNotFoundError:
        return {}


def _is_dead(content: dict[str, Any]) -> bool:
    """Return whether the holder of a lock was a process on this machine that has ended."""
    if content['host'] != socket.gethostname():
        return False
    try:
        os.kill(content['process'], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def is_locked(folder: pathlib.Path) -> bool:
    """Return whether a process has refreshed the lock of a folder recently. The clocks of the machines must agree."""
    content = _read_lock(folder)
    return bool(content) and not _is_dead(content) and time.time() - content['time'] < _EXPIRY_SECONDS
