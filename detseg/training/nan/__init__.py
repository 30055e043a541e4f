"""Steps whose loss or gradient is not finite: none of them is made, and each is diagnosed where it happened."""
