"""Floor 0: what every other package may use and what knows nothing of models or data."""
