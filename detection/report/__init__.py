"""Detections of a split, COCO's figures, and what is drawn of them."""
