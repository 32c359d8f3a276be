"""Reading an image file, and the size and values that a model sees it with."""
