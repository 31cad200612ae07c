"""Floor 6: the doors. Each is a short script over the library: python -m bert_jax.bin.NAME."""
