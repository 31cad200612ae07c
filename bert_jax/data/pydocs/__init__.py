"""The TFDS data set `pydocs`: text and labeled examples from the Python sources installed on this machine."""
