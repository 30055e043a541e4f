"""Readers, writers and the synthetic set; transforms; the data module."""
