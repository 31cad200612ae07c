"""Floor 3: a config made into objects, the train state and step, checkpoints, and the loop."""
