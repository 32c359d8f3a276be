"""Predictions of a split, and what is measured on them."""
