"""Commands whose output nobody reads, or cannot be written or encoded; Ctrl-C; limits of the system."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from bert_jax.core import cli
from tests.runs import ROOT


def run(body, *arguments, redirect='', stops_without_reader=False, stdout=subprocess.PIPE, **environment):
    """Run the body of the main function of a command in a new process, without JAX, which is slow to import.

    Args:
      body: Python code.
      *arguments: arguments of the command, as bytes or text.
      redirect: redirections of a shell.
      stops_without_reader: argument of `cli.run`.
      stdout: standard output of the process.
      **environment: changes to the environment variables; None removes one.
    """
    code = (
        'import logging, os, sys, threading\nfrom bert_jax.core import cli\n'
        f'def main():\n{textwrap.indent(textwrap.dedent(body), "    ")}\n'
        f'cli.run(main{", stops_without_reader=True" if stops_without_reader else ""})'
    )
    env = {'PYTHONPATH': str(ROOT), **os.environ, 'PYTHONUNBUFFERED': None, **environment}
    return subprocess.run(
        ['bash', '-c', f'exec "$@" {redirect}', 'bash', sys.executable, '-c', code, *arguments],
        env={name: value for name, value in env.items() if value is not None},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
    )


@pytest.fixture
def no_reader():
    """Write end of a pipe whose read end is closed, as after `| head` has ended."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


WORK = """
for i in range(9):
    print('progress', i)
    print('progress', i, file=sys.stderr)
    logging.info('message')
open(sys.argv[1], 'w').write('result')
"""


@pytest.mark.parametrize('redirect', ['', '2>&1', '2>/dev/full'])
def test_command_goes_on_without_reader(no_reader, tmp_path, redirect):
    done = run(WORK, tmp_path / 'file', stdout=no_reader, redirect=redirect)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'file').read_text() == 'result'
    assert b'Traceback' not in done.stderr


def test_command_that_only_prints_ends_without_reader(no_reader, tmp_path):
    done = run(WORK, tmp_path / 'file', stdout=no_reader, stops_without_reader=True)
    assert (done.returncode, done.stderr) == (141, b'')
    assert not (tmp_path / 'file').exists()


def test_result_that_cannot_be_written_to_standard_output_is_an_error():
    done = run('print("result", end="")', redirect='>/dev/full')
    assert done.returncode == 1
    assert done.stderr.startswith(b'error: the disk is full')
    assert done.stderr.count(b'\n') == 1


def test_closed_streams_are_not_taken_by_other_files(tmp_path):
    body = """
        with open(sys.argv[1], 'w') as file:
            print('progress', flush=True)
            print('progress', file=sys.stderr)
            os.write(2, b'message of a native library')
            file.write(f'{file.fileno() > 2} {os.get_inheritable(2)}')
    """
    done = run(body, tmp_path / 'file', redirect='<&- >&- 2>&-')
    assert (done.returncode, (tmp_path / 'file').read_text()) == (0, 'True True')


def test_characters_that_the_encoding_lacks_are_escaped():
    done = run('print("schön —")\nlogging.info("größer")', PYTHONIOENCODING='ascii')
    assert (done.returncode, done.stdout, done.stderr) == (0, b'sch\\xf6n \\u2014\n', b'gr\\xf6\\xdfer\n')


ASCII = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0', 'PYTHONIOENCODING': None}


def test_arguments_are_utf8_in_a_locale_without_it():
    done = run('print(len(sys.argv[1]))', 'schön', **ASCII)
    assert (done.returncode, done.stdout) == (0, b'5\n')
    done = run('pass', b'sch\xf6n', **ASCII)
    assert (done.returncode, done.stderr[-57:]) == (
        1,
        b"dcf6n' is not UTF-8. Use a terminal with UTF-8 encoding.\n",
    )


def test_path_that_cannot_be_encoded():
    done = run('open(sys.argv[1])', 'schön', **ASCII)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: 'sch\\xf6n' cannot be encoded as ascii. Set PYTHONUTF8=1")


def test_interrupt_during_an_import_ends_the_command(tmp_path):
    (tmp_path / 'extension.py').write_text(
        'import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt:\n    raise ImportError'
    )
    body = 'import signal; sys.path.append(sys.argv[1]); import extension'
    done = run(body, tmp_path)
    assert (done.returncode, done.stderr) == (130, b'interrupted\n')


def test_errors_of_threads_and_callbacks_are_not_printed():
    body = """
        class Failing:
            def __del__(self):
                1 / 0
        del Failing
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        raise cli.UserError('The cause. Remove it.')
    """
    done = run(body.replace('del Failing', 'Failing()'))
    assert (done.returncode, done.stderr) == (1, b'error: The cause. Remove it.\n')


def test_error_in_the_code_has_a_traceback():
    done = run('1 / 0')
    assert done.returncode == 1
    assert b'Traceback' in done.stderr
    assert b'ZeroDivisionError' in done.stderr


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), 'rows'), 'too many files are open'),
        (
            ValueError('RESOURCE_EXHAUSTED: Failed to open: Too many open files [os_error_code=24]'),
            'ulimit -n',
        ),
        (
            ValueError('OUT_OF_RANGE: Failed to write 3719 bytes: File too large [os_error_code=27]'),
            'ulimit -f',
        ),
    ],
)
def test_limits_of_the_system(error, message, capsys):
    assert cli.report_error(error) == 1
    text = capsys.readouterr().err
    assert message in text
    assert 'memory' not in text
