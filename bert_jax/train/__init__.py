"""Training: experiment configs, train state and step, checkpoints and the training loop."""
