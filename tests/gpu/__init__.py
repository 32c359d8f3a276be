"""What only a GPU shows, in stages; see ``python -m tests.gpu --help``."""
