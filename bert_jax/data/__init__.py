"""Floor 1: text to rows to batches, in numpy alone; knows nothing of models."""
