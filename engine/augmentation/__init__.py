"""Random changes of images as arrays of bytes: what is drawn, and the kernels that do it."""
