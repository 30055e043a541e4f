"""Pure functions on tensors and arrays; they use nothing else of detseg."""
