"""Floor 5: why it works, one study a file."""
