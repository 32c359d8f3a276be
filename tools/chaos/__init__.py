"""Kills a run at random, again and again, and compares its bits with those of a run that nobody touched."""
