"""Metrics: predictions and ground truth as arrays → numbers."""
