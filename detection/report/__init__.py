"""Detections of a split, COCO's metrics (mAP), and what is drawn of them."""
