"""Searches for the best settings with Optuna: its samplers and pruners, trials that are experiments of ours."""
