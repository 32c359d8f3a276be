"""Backbones: from a picture to six maps, the finest first. Each is a trained body and extra maps behind its last."""
