"""The names that other projects give the same weights: one table each, read in both directions."""
