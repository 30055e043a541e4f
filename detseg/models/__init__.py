"""Networks: their constructors take values and modules, never a config."""
