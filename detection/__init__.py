"""Object detection: SSD on feature pyramids. The package is reserved; this version trains classifiers."""
