"""Ranks and the launchers that start them: layout, devices, meeting, collectives, Slurm."""
