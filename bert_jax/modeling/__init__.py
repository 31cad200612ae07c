"""Models as Flax NNX modules; the rest of the code handles a model as a dict of arrays."""
