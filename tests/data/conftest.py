"""Real data sets, where they are prepared."""

import pytest


@pytest.fixture(scope='session')
def sst2(needs_tfds):
    """The name of a real data set, if it is there."""
    needs_tfds('glue/sst2')
    return 'glue/sst2'
