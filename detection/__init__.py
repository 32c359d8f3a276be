"""Object detection: SSD (Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016) on many backbones and necks."""
