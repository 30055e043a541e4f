"""Settings: the schema, and the strict loader that fills it."""
