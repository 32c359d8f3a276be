"""The training loop, and what a task gives it."""
