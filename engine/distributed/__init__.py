"""Ranks and the launchers that start them: layout, meeting, collectives, signals, Slurm."""
