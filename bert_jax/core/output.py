"""Standard output and standard error without the failures that need not end a command."""

import errno
import io
import os
import signal
import sys
from typing import Any

STOPPED_WITHOUT_READER = 128 + signal.SIGPIPE  # status that a shell shows for a program such as `yes | head`
_NO_READER = (errno.EPIPE, errno.EIO)  # the reader of the pipe has ended, or the terminal has closed


class _Stream(io.FileIO):
    """Standard output or standard error of this process.

    On standard error, all write errors are ignored, because no message is worth losing work for. On
    standard output, write errors are raised, unless the reader of the pipe has ended or the
    terminal has closed. In that case, `needs_reader` decides.

    Args:
      descriptor: 1 for standard output, 2 for standard error.
      needs_reader: whether the process ends at the first write to standard output that nobody
        reads; otherwise, the text is discarded.
    """

    def __init__(self, descriptor: int, needs_reader: bool):
        super().__init__(descriptor, 'w', closefd=False)
        self._needs_reader = needs_reader
        self._raises_errors = descriptor == 1

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as e:
            has_no_reader = e.errno in _NO_READER
            if not self._raises_errors or (has_no_reader and not self._needs_reader):
                return len(data)
            self._raises_errors = False  # only the first: the interpreter flushes once more when it exits
            if has_no_reader:
                raise SystemExit(STOPPED_WITHOUT_READER) from e
            raise


def protect_streams(stops_without_reader: bool = False) -> None:
    """Make standard output and standard error of this process safe to print to.

    Text that nobody reads anymore is discarded, as in `train ... 2>&1 | head`; so is all text of a
    closed stream (`2>&-`). Characters that the encoding of the stream lacks are printed as
    `\\uXXXX`. A stream that is not that of the process, as in a notebook, stays as it is.

    Args:
      stops_without_reader: whether to end the process once nobody reads its standard output
        anymore. Set it for commands that only print their result.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The stream is closed. The next file to be opened would get its number, and with it all messages.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in ((1, 'stdout'), (2, 'stderr')):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f'__{name}__'):
            continue
        if stream is not None:
            stream.flush()
        file = io.BufferedWriter(_Stream(descriptor, stops_without_reader and name == 'stdout'))
        encoding = stream.encoding if stream is not None else 'utf-8'
        setattr(sys, name, io.TextIOWrapper(file, encoding, errors='backslashreplace', line_buffering=True))
