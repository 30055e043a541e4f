"""Torch data sets over annotations and images: what yields samples, and what may be wrong with a sample."""
