"""Configs, mesh and sharding, metrics, errors and processes: the layer that all other packages build on."""
