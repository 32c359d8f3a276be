"""Annotated images: COCO's format, checked entry by entry, and drawn shapes."""
