"""Which failures another start may cure, and on which node it is to run: what slurm/requeue.sh asks."""
