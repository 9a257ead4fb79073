"""Plain PyTorch and Pillow DINO: the shortest correct code, with which every fast path is compared."""
