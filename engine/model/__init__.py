"""A network on its way to training: weights, freezing, compilation, gradients over ranks."""
