"""What a training does beside its steps: checkpoints, progress, files, stopping."""
