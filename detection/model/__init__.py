"""SSD: backbone, neck, heads, default boxes."""
