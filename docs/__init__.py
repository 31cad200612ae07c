"""Sources of the documentation, and the scripts that generate its reference from the code."""
