"""Submits runs to Slurm: checked first, with the code frozen, one or a sweep of them."""
