"""Backbones: each a FeatureExtractor."""
