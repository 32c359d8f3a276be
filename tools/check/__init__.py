"""Looks for what would stop a run, before it is queued."""
