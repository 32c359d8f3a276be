"""Mathematics of diffusion: how noise is added in training, and what a network is asked for."""
