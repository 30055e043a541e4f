"""The learning rate that a range test suggests: the test (finder), what it found (curve), its picture (plot)."""
