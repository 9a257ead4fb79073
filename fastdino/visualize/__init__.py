"""What a run and its features look like."""
