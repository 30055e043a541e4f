"""The shapes set, a synthetic data set for demos, tests and first steps."""
