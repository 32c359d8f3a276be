"""From arguments to exit code: train, evaluate, predict, resume."""
