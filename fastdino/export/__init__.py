"""Trained backbones in the formats of other programs, each file loaded again and compared before it stays."""
