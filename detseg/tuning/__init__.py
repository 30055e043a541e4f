"""Search for settings: learning rate, hyper-parameters."""
