"""Before training: a data set looked through, or rewritten so that it is quick to read."""
