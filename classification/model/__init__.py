"""Classifiers: ours and timm's, the heads they may be given, and the weights they start from."""
