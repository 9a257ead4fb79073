"""The map of the feature space: every picture where its features put it, on one page that needs nothing else."""
