"""The sub-commands that put a trained model to use."""
