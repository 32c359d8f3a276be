"""What TensorBoard shows of a run: its numbers and images, its settings, and how the page is laid out."""
