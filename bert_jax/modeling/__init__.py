"""Floor 1: models as Flax NNX modules. Outside this package a model is a dict of arrays."""
