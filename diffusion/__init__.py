"""Diffusion models: a Swin U-Net. The package is reserved; this version trains classifiers and detectors."""
