"""Networks: backbones, DINO's head, the multi-crop wrapper, and reading their weights."""
