"""All runs of an experiment: by worker processes, by Slurm, or in one process."""
