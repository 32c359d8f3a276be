"""Diffusion models: a Swin U-Net that makes images of noise."""
