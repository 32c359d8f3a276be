"""Swin U-Net: blocks that time and class modulate, down to a bottleneck and up again."""
