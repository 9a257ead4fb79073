"""Training as a job of a cluster."""
