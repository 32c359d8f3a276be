"""Figures for people: training curves, sheets of images, names in any script."""
