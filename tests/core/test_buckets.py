import json
import os
import pathlib
import socket
import time

import pytest

from bert_jax.core import buckets, cli, paths
from bert_jax.core.errors import UserError


@pytest.fixture
def fast_locks(monkeypatch):
    """Make locks expire after half a second."""
    for name, seconds in (('REFRESH', 0.05), ('EXPIRY', 0.5), ('POLL', 0.05)):
        monkeypatch.setattr(buckets, f'_{name}_SECONDS', seconds)


def write_lock(folder, **about):
    content = {'host': 'elsewhere', 'process': 1, 'id': 'other', 'time': time.time(), **about}
    paths.write_atomic(folder / '.lock', json.dumps(content))


def test_files_in_a_bucket_are_written_found_and_read(bucket):
    paths.write_atomic(bucket / 'a/config.json', '{}')
    paths.write_atomic(bucket / 'a/b/config.json', b'[]')
    assert str(bucket / 'a') == 's3://bucket/a'
    assert (bucket / 'a/config.json').read_text() == '{}'
    assert paths.find_files(bucket, 'config.json') == [bucket / 'a/b/config.json', bucket / 'a/config.json']
    assert paths.absolute(bucket) == bucket
    cli.check_writable(bucket / 'new/file', '--out')
    assert len(paths.find_files(bucket, '*')) == 2  # check_writable leaves nothing


def test_unusable_bucket_is_an_error(bucket, monkeypatch):
    def fail(*_, **__):
        raise PermissionError('Access Denied')

    monkeypatch.setattr(type(buckets.file_system(bucket)), 'pipe_file', fail)
    with pytest.raises(UserError, match=r"'s3://bucket/x/y' cannot be written \(Access Denied\)"):
        cli.check_writable(bucket / 'x/y', '--workdir')
    monkeypatch.setattr('fsspec.filesystem', lambda _: __import__('missing_package'))
    with pytest.raises(UserError, match='needs the package gcsfs. Install it with `pip install gcsfs`'):
        paths.make_path('gs://bucket/x')


def test_flags_for_local_paths_reject_buckets():
    with pytest.raises(UserError, match='--to must be a local path'):
        cli.check_writable(pathlib.Path('s3://bucket/x'), '--to')


def test_lock_excludes_other_processes(bucket, fast_locks):
    with paths.lock_workdir(bucket):
        assert paths.is_workdir_locked(bucket)
        with pytest.raises(UserError, match='Another process is using'), paths.lock_workdir(bucket):
            pass
    assert not paths.is_workdir_locked(bucket)
    with paths.lock_workdir(bucket):
        pass


def test_lock_of_a_killed_process_expires(bucket, fast_locks):
    write_lock(bucket)
    start = time.monotonic()
    with paths.lock_workdir(bucket):
        assert time.monotonic() - start >= 0.5
        assert json.loads((bucket / '.lock').read_text())['process'] == os.getpid()
    dead = pathlib.Path('/proc/sys/kernel/pid_max')
    number = int(dead.read_text()) + 1 if dead.exists() else 2**22
    write_lock(bucket, host=socket.gethostname(), process=number)
    assert not paths.is_workdir_locked(bucket)
    start = time.monotonic()
    with paths.lock_workdir(bucket):
        assert time.monotonic() - start < 0.4


def test_process_that_lost_its_lock_ends(bucket, fast_locks, monkeypatch):
    ended = []
    monkeypatch.setattr(os, '_exit', ended.append)
    with paths.lock_workdir(bucket):
        write_lock(bucket)
        deadline = time.monotonic() + 5
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ended[0] == 1
    assert json.loads((bucket / '.lock').read_text())['id'] == 'other'


def test_mirror_uploads_files_that_have_changed(bucket, monkeypatch):
    paths.write_atomic(bucket / 'metrics.jsonl', 'before\n')
    mirror = buckets.Mirror(bucket, ('metrics.jsonl', 'progress.json'))
    file = mirror.folder / 'metrics.jsonl'
    assert file.read_text() == 'before\n'
    file.write_text('before\nafter\n')
    (mirror.folder / 'tensorboard').mkdir()
    (mirror.folder / 'tensorboard/events').write_bytes(b'1')
    mirror.upload()
    assert (bucket / 'metrics.jsonl').read_text() == 'before\nafter\n'
    assert (bucket / 'tensorboard/events').read_bytes() == b'1'
    (bucket / 'metrics.jsonl').unlink()
    (mirror.folder / 'tensorboard/events').write_bytes(b'12')
    mirror.close()
    assert not (bucket / 'metrics.jsonl').exists()  # it had not changed
    assert (bucket / 'tensorboard/events').read_bytes() == b'12'
    assert not mirror.folder.exists()


def test_mirror_uploads_by_itself(bucket, monkeypatch):
    monkeypatch.setattr(buckets, '_UPLOAD_SECONDS', 0.01)
    mirror = buckets.Mirror(bucket, ())
    (mirror.folder / 'a').write_text('a')
    deadline = time.monotonic() + 5
    while not (bucket / 'a').exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (bucket / 'a').read_text() == 'a'
    mirror.close()


def test_mirror_keeps_files_that_cannot_be_uploaded(bucket, monkeypatch, caplog):
    mirror = buckets.Mirror(bucket, ())
    (mirror.folder / 'a').write_text('a')

    def fail(*_, **__):
        raise OSError('no network')

    monkeypatch.setattr(type(buckets.file_system(bucket)), 'pipe_file', fail)
    mirror.close()
    assert 'cannot upload to s3://bucket (no network)' in caplog.text
    assert (mirror.folder / 'a').read_text() == 'a'


def test_mirror_of_a_local_folder_is_that_folder(tmp_path):
    mirror = buckets.Mirror(tmp_path, ('metrics.jsonl',))
    assert mirror.folder == tmp_path
    assert mirror.upload()
    mirror.close()
    assert tmp_path.exists()


def test_folders_are_copied_if_they_differ(bucket, tmp_path):
    local, other = tmp_path / 'local', tmp_path / 'other'
    rows = bucket / 'rows'

    def files(folder):
        found = (p for p in paths.find_files(folder, '*') if p.is_file() and p.name != buckets._INDEX)
        return {str(p.relative_to(folder)): p.read_text() for p in found}

    buckets.download_folder(rows, local)
    assert files(local) == {}
    for name, text in (('tokenizer.json', 't'), ('length8/manifest.json', 'm'), ('length8/train', 'x')):
        paths.write_atomic(local / name, text)
    buckets.upload_folder(local, rows)
    assert files(rows) == files(local)
    buckets.download_folder(rows, other)
    assert files(other) == files(local)

    (other / 'length8/train').write_text('y')  # as long as before
    (other / 'tokenizer.json').unlink()
    written = []
    fs = buckets.file_system(rows)
    put_file = fs.put_file
    fs.put_file = lambda source, target: [written.append(target), put_file(source, target)]
    buckets.upload_folder(other, rows)
    assert written == ['/bucket/rows/length8/train']
    assert files(rows) == files(other)
    fs.put_file = put_file
    buckets.download_folder(rows, local)
    assert files(local) == files(other)

    unchanged = (local / 'length8/manifest.json').stat().st_mtime_ns
    buckets.download_folder(rows, local)
    assert (local / 'length8/manifest.json').stat().st_mtime_ns == unchanged
    (local / 'length8/train').write_text('damaged')
    buckets.download_folder(rows, local)
    assert files(local) == files(rows)
