"""Names, signatures and files of other DINO code, for scripts that move over."""
