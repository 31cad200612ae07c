"""Let Orbax read and write checkpoints in buckets of S3 as it does for Google Cloud Storage."""

import functools
import os
from typing import Any


@functools.cache
def enable() -> None:
    """Add s3:// to the paths that Orbax treats as paths in a bucket.

    Orbax then writes a checkpoint under its final name, and a file `commit_success.txt` last. TensorStore reads the
    credentials as the tools of AWS do; `AWS_REGION` and `AWS_ENDPOINT_URL` name the region and another server.
    """
    # Orbax 0.12 has no public way to add a kind of bucket, although TensorStore supports S3.
    from orbax.checkpoint._src.path import gcs_utils
    from orbax.checkpoint._src.serialization import tensorstore_utils

    make_gcs_spec = gcs_utils.get_kvstore_for_gcs

    def make_spec(path: str) -> dict[str, Any]:
        # Orbax normalizes s3:// to s3:/.
        return _s3_spec(path) if path.startswith('s3:/') else make_gcs_spec(path)

    gcs_utils._GCS_PATH_PREFIX = ('gs://', 's3://')
    gcs_utils.get_kvstore_for_gcs = make_spec
    tensorstore_utils._use_gcs_driver = lambda folder: folder.startswith(('gs://', 's3:/'))


def _s3_spec(path: str) -> dict[str, Any]:
    """Return the specification of a folder in an S3 bucket for TensorStore."""
    bucket, _, key = path.removeprefix('s3:/').lstrip('/').partition('/')
    spec: dict[str, Any] = {'driver': 's3', 'bucket': bucket, 'path': key}
    region = os.environ.get('AWS_REGION') or os.environ.get('AWS_DEFAULT_REGION')
    if endpoint := os.environ.get('AWS_ENDPOINT_URL_S3') or os.environ.get('AWS_ENDPOINT_URL'):
        spec |= {'endpoint': endpoint, 'aws_region': region or 'us-east-1'}
    elif region:
        spec['aws_region'] = region
    if (
        'AWS_ACCESS_KEY_ID' in os.environ
    ):  # otherwise TensorStore logs an error for each other source that is missing
        spec['aws_credentials'] = {'type': 'environment'}
    return spec
