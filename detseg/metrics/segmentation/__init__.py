"""Metrics of label maps: IoU, Dice, pixel accuracy, boundary IoU."""
