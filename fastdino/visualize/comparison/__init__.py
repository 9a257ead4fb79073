"""Runs side by side: which is better, how sure that is, and how they differ, on one page that needs nothing else."""
