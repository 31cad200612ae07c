"""Benchmarks of pretraining, fine-tuning and generation against Hugging Face transformers."""
