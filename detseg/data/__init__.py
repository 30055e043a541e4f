"""Data sets: readers, writers and the synthetic set; augmentation; loading."""
