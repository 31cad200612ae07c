"""Studies of why self-supervised pretraining works, one topic per file."""
