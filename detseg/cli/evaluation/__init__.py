"""The sub-commands on results of a training."""
