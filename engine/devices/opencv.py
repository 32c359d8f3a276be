"""OpenCV as everything here uses it: in the thread that calls it, since threads of its own do not survive a fork."""

import cv2

cv2.setNumThreads(1)

__all__ = ["cv2"]
