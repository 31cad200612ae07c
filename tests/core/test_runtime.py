"""Process-wide settings."""

import resource

import pytest

from bert_jax.core import runtime


@pytest.mark.parametrize(
    ('limits', 'expected'),
    [
        ((256, 10_000), [(4096, 10_000)]),
        ((256, 1000), [(1000, 1000)]),
        ((256, resource.RLIM_INFINITY), [(4096, resource.RLIM_INFINITY)]),
        ((8192, 10_000), []),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), []),
    ],
)
def test_limit_of_open_files_is_raised_as_far_as_permitted(limits, expected, monkeypatch):
    new = []
    monkeypatch.setattr(resource, 'getrlimit', {resource.RLIMIT_NOFILE: limits}.get)
    monkeypatch.setattr(resource, 'setrlimit', lambda _, limits: new.append(limits))
    runtime.allow_open_files()
    assert new == expected
