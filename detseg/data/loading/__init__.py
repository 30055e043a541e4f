"""Which samples make a batch, and the loaders that bring batches to the device."""
