"""Fixtures for real data sets."""

import pytest


@pytest.fixture(scope='session')
def sst2(needs_tfds):
    """Name of a real data set; skips the test if it is not prepared."""
    needs_tfds('glue/sst2')
    return 'glue/sst2'
