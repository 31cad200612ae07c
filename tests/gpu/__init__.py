"""Tests that compare numbers on a GPU with those of plain attention, or of the CPU.

On a machine with a GPU, `python -m pytest --noconftest tests/gpu` runs all of them on it. The option keeps
`tests/conftest.py` from selecting CPU devices. In the default suite, the CPU runs what it can.

Needed packages: those of `pip install "jax[cuda13]" flax optax ml-collections tokenizers pytest`.
"""
