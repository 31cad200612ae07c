"""The TFDS data set `pydocs`: text and labels made from the Python sources installed on this machine."""
