"""Mathematics of boxes: coding, matching, losses, post-processing."""
