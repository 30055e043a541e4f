"""Several processes: how they start, talk and share a validation."""
