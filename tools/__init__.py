"""Commands around training; a folder each, or a file."""
