"""What differs by device: precision, memory layout, settings of torch."""
