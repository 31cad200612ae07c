"""Describe the command that runs in this process and the software that it uses, for the records of runs and rows."""

import contextlib
import importlib.metadata
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

# Packages that can change the result of a run or the rows of a text.
_PACKAGES = (
    'jax',
    'jaxlib',
    'flax',
    'optax',
    'orbax-checkpoint',
    'numpy',
    'grain',
    'array-record',
    'tokenizers',
    'tensorflow-datasets',
    'ml-collections',
    'scikit-learn',
)


def describe_process() -> dict[str, Any]:
    """Return command and working directory of this process, the commit of the code, and the versions of packages."""
    versions = {'python': platform.python_version(), 'bert_jax': sys.modules['bert_jax'].__version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        'command': shlex.join(sys.orig_argv),
        'directory': str(pathlib.Path.cwd()),
        'commit': _read_commit(),
        'versions': versions,
    }


def _read_commit() -> str:
    """Return the Git commit of the code, with '-dirty' if files have changed since; empty outside a repository."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*']
    try:
        done = subprocess.run(command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # Git is not installed
        return ''
    return done.stdout.strip()
