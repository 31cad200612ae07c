"""Data loading in NumPy only: text sources, tokenizers, rows on disk and batches. Knows nothing about models."""
