"""What trained features are worth, measured."""
