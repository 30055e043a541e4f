"""What is found by trying before a training."""
