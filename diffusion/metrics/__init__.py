"""What is measured of generated images: beside held-out ones and beside those that were trained on."""
