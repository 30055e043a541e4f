"""Where in the run a checkpoint was written, and what may differ when it is resumed."""
