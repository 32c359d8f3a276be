"""Trained models in other runtimes: what an exporter is given, and exported files in use."""
