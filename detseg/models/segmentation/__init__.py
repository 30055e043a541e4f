"""Semantic segmentation: one segmenter, the heads of FCN and U-Net, and their losses."""
