"""What is wrong with a data set, and repaired copies."""
