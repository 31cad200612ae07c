"""Floor 4: the evaluator that training and the eval binaries share, and reports."""
