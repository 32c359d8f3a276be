"""What a run leaves behind: one module for each file of an experiment's folder."""
