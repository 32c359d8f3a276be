"""Images to learn from, with the noise that is added to each."""
