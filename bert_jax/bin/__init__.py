"""Commands: short scripts over the library, run with `python -m bert_jax.bin.NAME`."""
