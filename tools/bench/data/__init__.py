"""What reading images costs, and the start of a run on many, beside peers."""
