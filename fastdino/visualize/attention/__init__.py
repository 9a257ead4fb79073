"""What the CLS token of the last layer attends to: objects, if training went well (paper, figures 1 and 4)."""
