"""What is drawn and written of generated images: grids, nearest training images, losses by time, reports."""
