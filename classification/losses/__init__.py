"""Losses over one label or several, and weights of classes."""
