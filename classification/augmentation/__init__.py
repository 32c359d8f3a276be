"""Random changes of training images, and mixing of pairs."""
