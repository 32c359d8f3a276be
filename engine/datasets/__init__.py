"""Labelled images for any task: class folders, CSV files, torchvision's sets, hold-out, sampling."""
