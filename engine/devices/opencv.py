"""OpenCV as everything here uses it: in the thread that calls it, since threads of its own do not survive a fork."""

from typing import Any

import cv2 as opencv

opencv.setNumThreads(1)

cv2: Any = opencv
"""The module; its stubs know of arrays of any numbers, where ours are bytes."""
