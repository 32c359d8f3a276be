"""From noise to images: solvers over a denoiser, and what is put around one."""
