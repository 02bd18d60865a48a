"""Training the rows of a table at once on a Ray cluster or in a SLURM job: --on ray."""
