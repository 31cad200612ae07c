"""Floor 2: weights of other libraries, in and out."""
