"""Layer 4: speed of pretraining, fine-tuning and generation, beside Hugging Face transformers."""
