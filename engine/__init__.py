"""What all rooms use: errors, files, logging, seeds, texts."""
